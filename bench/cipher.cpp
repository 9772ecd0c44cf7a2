// How fast this machine makes AES-CTR keystreams: each implementation that its processor runs, on one core, over memory that
// stays in the second level of the cache.
//
//   cipher ROUNDS   prints {"openssl": {"128": [GB/s, ...], "256": [...]}, ...}: one figure a round, the implementations in turn
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "crypto/keystream.h"

namespace crypto = veturbo::crypto;

namespace {

constexpr size_t kBytes = size_t{128} << 10;
constexpr int kRepeats = 2000;

struct Candidate {
  std::string name;
  size_t key_bits;
  std::unique_ptr<crypto::Keystream> keystream;
  std::vector<double> speeds;
};

double gigabytes_per_second(const crypto::Keystream& keystream, std::span<std::byte> bytes) {
  const auto start = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < kRepeats; ++i) {
    keystream.apply(i * bytes.size(), bytes);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return static_cast<double>(kRepeats * bytes.size()) / seconds / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s ROUNDS\n", argv[0]);
    return 2;
  }
  std::vector<std::byte> bytes(kBytes);
  std::vector<Candidate> candidates;
  for (const crypto::CipherImplementation implementation : crypto::available_implementations()) {
    for (const size_t key_bits : {128, 256}) {
      const crypto::Iv iv = {};
      candidates.push_back(
          {std::string(crypto::implementation_name(implementation)),
           key_bits,
           crypto::make_keystream(crypto::make_data_key(veturbo::Secret(key_bits / 8), iv, "key", "iv"), implementation),
           {}});
    }
  }
  for (int round = 0; round < std::max(1, std::atoi(argv[1])); ++round) {
    for (Candidate& candidate : candidates) {
      candidate.speeds.push_back(gigabytes_per_second(*candidate.keystream, bytes));
    }
  }
  std::printf("{");
  for (size_t i = 0; i < candidates.size(); i += 2) {
    std::printf("%s\"%s\": {", i == 0 ? "" : ", ", candidates[i].name.c_str());
    for (size_t k = i; k < i + 2; ++k) {
      std::printf("%s\"%zu\": [", k == i ? "" : ", ", candidates[k].key_bits);
      for (size_t round = 0; round < candidates[k].speeds.size(); ++round) {
        std::printf("%s%.3f", round == 0 ? "" : ", ", candidates[k].speeds[round]);
      }
      std::printf("]");
    }
    std::printf("}");
  }
  std::printf("}\n");
  return 0;
}
