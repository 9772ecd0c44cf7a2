#include "crypto/vector_keystream.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define VETURBO_VECTOR_TARGET __attribute__((target("avx2,vaes")))
#include "crypto/vector_keystream_inl.h"

namespace veturbo::crypto {

namespace {

struct Vector256 {
  using Register = __m256i;
  static constexpr size_t kBlocks = 2;

  VETURBO_VECTOR_TARGET static Register load(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  VETURBO_VECTOR_TARGET static void store(std::byte* to, Register value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value);
  }
  VETURBO_VECTOR_TARGET static Register exclusive_or(Register a, Register b) { return _mm256_xor_si256(a, b); }
  VETURBO_VECTOR_TARGET static Register encrypt_round(Register state, Register key) { return _mm256_aesenc_epi128(state, key); }
  VETURBO_VECTOR_TARGET static Register encrypt_last_round(Register state, Register key) {
    return _mm256_aesenclast_epi128(state, key);
  }

  // A block of these two halves, in every place.
  VETURBO_VECTOR_TARGET static Register repeat(uint64_t first, uint64_t second) {
    const auto high = static_cast<long long>(second);
    const auto low = static_cast<long long>(first);
    return _mm256_set_epi64x(high, low, high, low);
  }
};

}  // namespace

bool vaes256_supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vaes");
}

std::unique_ptr<Keystream> make_vaes256_keystream(const DataKey& key) {
  return std::make_unique<VectorKeystream<Vector256>>(key);
}

}  // namespace veturbo::crypto

#endif
