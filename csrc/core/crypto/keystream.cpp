#include "crypto/keystream.h"

#include <algorithm>
#include <iterator>

#include "crypto/openssl_keystream.h"
#include "crypto/vector_keystream.h"

namespace veturbo::crypto {

namespace {

struct Candidate {
  CipherImplementation implementation;
  bool (*supported)();
  std::unique_ptr<Keystream> (*make)(const DataKey& key);
};

// The fastest first.
constexpr Candidate kCandidates[] = {
#if defined(__x86_64__)
    {CipherImplementation::kVaes512, vaes512_supported, make_vaes512_keystream},
    {CipherImplementation::kVaes256, vaes256_supported, make_vaes256_keystream},
    {CipherImplementation::kAesNi, aesni_supported, make_aesni_keystream},
#endif
    {CipherImplementation::kOpenSsl, [] { return true; }, make_openssl_keystream},
};

}  // namespace

std::string_view implementation_name(CipherImplementation implementation) {
  switch (implementation) {
    case CipherImplementation::kOpenSsl:
      return "openssl";
    case CipherImplementation::kAesNi:
      return "aesni";
    case CipherImplementation::kVaes256:
      return "vaes256";
    case CipherImplementation::kVaes512:
      return "vaes512";
  }
  return "unknown";
}

std::vector<CipherImplementation> available_implementations() {
  std::vector<CipherImplementation> available;
  for (const Candidate& candidate : kCandidates) {
    if (candidate.supported()) {
      available.push_back(candidate.implementation);
    }
  }
  return available;
}

std::unique_ptr<Keystream> make_keystream(const DataKey& key, CipherImplementation implementation) {
  const auto* const candidate = std::ranges::find(kCandidates, implementation, &Candidate::implementation);
  return candidate == std::end(kCandidates) ? nullptr : candidate->make(key);
}

std::unique_ptr<Keystream> make_keystream(const DataKey& key) {
  return make_keystream(key, available_implementations().front());
}

}  // namespace veturbo::crypto
