#include "crypto/vector_keystream.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define VETURBO_VECTOR_TARGET __attribute__((target("avx512f,vaes")))
#include "crypto/vector_keystream_inl.h"

namespace veturbo::crypto {

namespace {

struct Vector512 {
  using Register = __m512i;
  static constexpr size_t kBlocks = 4;

  VETURBO_VECTOR_TARGET static Register load(const std::byte* from) { return _mm512_loadu_si512(from); }
  VETURBO_VECTOR_TARGET static void store(std::byte* to, Register value) { _mm512_storeu_si512(to, value); }
  VETURBO_VECTOR_TARGET static Register exclusive_or(Register a, Register b) { return _mm512_xor_si512(a, b); }
  VETURBO_VECTOR_TARGET static Register encrypt_round(Register state, Register key) { return _mm512_aesenc_epi128(state, key); }
  VETURBO_VECTOR_TARGET static Register encrypt_last_round(Register state, Register key) {
    return _mm512_aesenclast_epi128(state, key);
  }

  // A block of these two halves, in every place.
  VETURBO_VECTOR_TARGET static Register repeat(uint64_t first, uint64_t second) {
    const auto high = static_cast<long long>(second);
    const auto low = static_cast<long long>(first);
    return _mm512_set4_epi64(high, low, high, low);
  }
};

}  // namespace

bool vaes512_supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vaes");
}

std::unique_ptr<Keystream> make_vaes512_keystream(const DataKey& key) {
  return std::make_unique<VectorKeystream<Vector512>>(key);
}

}  // namespace veturbo::crypto

#endif
