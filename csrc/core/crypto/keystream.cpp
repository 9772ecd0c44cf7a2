#include "crypto/keystream.h"

#include "crypto/openssl_keystream.h"
#include "crypto/vector_keystream.h"

namespace veturbo::crypto {

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
  if (vaes512_supported()) {
    available.push_back(CipherImplementation::kVaes512);
  }
  if (vaes256_supported()) {
    available.push_back(CipherImplementation::kVaes256);
  }
  if (aesni_supported()) {
    available.push_back(CipherImplementation::kAesNi);
  }
  available.push_back(CipherImplementation::kOpenSsl);
  return available;
}

std::unique_ptr<Keystream> make_keystream(const DataKey& key, CipherImplementation implementation) {
  switch (implementation) {
    case CipherImplementation::kVaes512:
      return make_vaes512_keystream(key);
    case CipherImplementation::kVaes256:
      return make_vaes256_keystream(key);
    case CipherImplementation::kAesNi:
      return make_aesni_keystream(key);
    case CipherImplementation::kOpenSsl:
      break;
  }
  return make_openssl_keystream(key);
}

std::unique_ptr<Keystream> make_keystream(const DataKey& key) {
  return make_keystream(key, available_implementations().front());
}

}  // namespace veturbo::crypto
