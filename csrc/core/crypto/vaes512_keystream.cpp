#include "crypto/vaes_keystream.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define VETURBO_VAES_TARGET __attribute__((target("avx512f,avx512bw,vaes")))
#include "crypto/vaes_keystream_inl.h"

namespace veturbo::crypto {

namespace {

struct Vector512 {
  using Register = __m512i;
  static constexpr size_t kBlocks = 4;

  VETURBO_VAES_TARGET static Register load(const std::byte* from) { return _mm512_loadu_si512(from); }
  VETURBO_VAES_TARGET static void store(std::byte* to, Register value) { _mm512_storeu_si512(to, value); }
  VETURBO_VAES_TARGET static Register exclusive_or(Register a, Register b) { return _mm512_xor_si512(a, b); }
  VETURBO_VAES_TARGET static Register encrypt_round(Register state, Register key) { return _mm512_aesenc_epi128(state, key); }
  VETURBO_VAES_TARGET static Register encrypt_last_round(Register state, Register key) {
    return _mm512_aesenclast_epi128(state, key);
  }

  // One counter a block, as little-endian numbers.
  VETURBO_VAES_TARGET static Register counters(uint64_t high, uint64_t low) {
    const auto lane = [](uint64_t value) { return static_cast<long long>(value); };
    return _mm512_set_epi64(lane(high), lane(low + 3), lane(high), lane(low + 2), lane(high), lane(low + 1), lane(high),
                            lane(low));
  }
  VETURBO_VAES_TARGET static Register plus_one_vector(Register counters) {
    return _mm512_add_epi64(counters, _mm512_set_epi64(0, kBlocks, 0, kBlocks, 0, kBlocks, 0, kBlocks));
  }
  VETURBO_VAES_TARGET static Register big_endian(Register counters) {
    constexpr long long kLow = 0x08090a0b0c0d0e0f;
    constexpr long long kHigh = 0x0001020304050607;
    return _mm512_shuffle_epi8(counters, _mm512_set_epi64(kHigh, kLow, kHigh, kLow, kHigh, kLow, kHigh, kLow));
  }
};

}  // namespace

bool vaes512_supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("vaes");
}

std::unique_ptr<Keystream> make_vaes512_keystream(const DataKey& key) {
  return std::make_unique<VaesKeystream<Vector512>>(key);
}

}  // namespace veturbo::crypto

#else

namespace veturbo::crypto {

bool vaes512_supported() {
  return false;
}

std::unique_ptr<Keystream> make_vaes512_keystream(const DataKey&) {
  return nullptr;
}

}  // namespace veturbo::crypto

#endif
