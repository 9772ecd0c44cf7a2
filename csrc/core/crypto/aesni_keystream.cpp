#include "crypto/vector_keystream.h"

#if defined(__x86_64__)

#include <immintrin.h>

// AVX for its instructions of three operands.
#define VETURBO_VECTOR_TARGET __attribute__((target("avx,aes")))
#include "crypto/vector_keystream_inl.h"

namespace veturbo::crypto {

namespace {

struct Vector128 {
  using Register = __m128i;
  static constexpr size_t kBlocks = 1;

  VETURBO_VECTOR_TARGET static Register load(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  VETURBO_VECTOR_TARGET static void store(std::byte* to, Register value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value);
  }
  VETURBO_VECTOR_TARGET static Register exclusive_or(Register a, Register b) { return _mm_xor_si128(a, b); }
  VETURBO_VECTOR_TARGET static Register encrypt_round(Register state, Register key) { return _mm_aesenc_si128(state, key); }
  VETURBO_VECTOR_TARGET static Register encrypt_last_round(Register state, Register key) {
    return _mm_aesenclast_si128(state, key);
  }

  // A block of these two halves.
  VETURBO_VECTOR_TARGET static Register repeat(uint64_t first, uint64_t second) {
    return _mm_set_epi64x(static_cast<long long>(second), static_cast<long long>(first));
  }
};

}  // namespace

bool aesni_supported() {
  return __builtin_cpu_supports("avx") && __builtin_cpu_supports("aes");
}

std::unique_ptr<Keystream> make_aesni_keystream(const DataKey& key) {
  return std::make_unique<VectorKeystream<Vector128>>(key);
}

}  // namespace veturbo::crypto

#endif
