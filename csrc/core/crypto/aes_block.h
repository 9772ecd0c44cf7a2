#pragma once

#include <cstddef>
#include <cstdint>

// AES as FIPS 197 defines it, as far as more than one implementation needs it. Also compiled by nvcc: no exceptions, no
// containers.
#ifdef __CUDACC__
#define VETURBO_HOST_DEVICE __host__ __device__
#else
#define VETURBO_HOST_DEVICE
#endif

namespace veturbo::crypto {

constexpr int kMaxRounds = 14;

// The expanded key, in the order of its bytes: round i is XORed from bytes[16 * i] on.
struct RoundKeys {
  alignas(16) uint8_t bytes[16 * (kMaxRounds + 1)];
  int rounds;  // 10 for a key of 128 bits, 14 for one of 256
};

namespace detail {

// Multiplication by x in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
VETURBO_HOST_DEVICE constexpr uint8_t times_x(uint8_t a) {
  return static_cast<uint8_t>((a << 1U) ^ ((a & 0x80U) != 0 ? 0x1BU : 0U));
}

struct SBox {
  uint8_t values[256];
};

constexpr SBox make_s_box() {
  SBox box{};
  // p runs through all elements but 0 as powers of the generator x + 1, q through their inverses.
  uint8_t p = 1;
  uint8_t q = 1;
  do {
    p = static_cast<uint8_t>(p ^ times_x(p));
    q = static_cast<uint8_t>(q ^ (q << 1U));
    q = static_cast<uint8_t>(q ^ (q << 2U));
    q = static_cast<uint8_t>(q ^ (q << 4U));
    q = static_cast<uint8_t>((q & 0x80U) != 0 ? q ^ 0x09U : q);
    const auto rotated = [q](unsigned by) { return static_cast<uint8_t>((q << by) | (q >> (8U - by))); };
    box.values[p] = static_cast<uint8_t>(q ^ rotated(1) ^ rotated(2) ^ rotated(3) ^ rotated(4) ^ 0x63U);
  } while (p != 1);
  box.values[0] = 0x63;
  return box;
}

inline constexpr SBox kSBox = make_s_box();

}  // namespace detail

// `key_bytes` is 16 or 32.
constexpr RoundKeys expand_key(const uint8_t* key, size_t key_bytes) {
  RoundKeys keys{};
  keys.rounds = key_bytes == 16 ? 10 : 14;
  const size_t key_words = key_bytes / 4;
  for (size_t i = 0; i < key_bytes; ++i) {
    keys.bytes[i] = key[i];
  }
  uint8_t round_constant = 1;
  for (size_t word = key_words; word < 4U * (static_cast<size_t>(keys.rounds) + 1); ++word) {
    uint8_t mixed[4] = {};
    for (size_t i = 0; i < 4; ++i) {
      mixed[i] = keys.bytes[4 * (word - 1) + i];
    }
    if (word % key_words == 0) {
      const uint8_t first = mixed[0];
      for (size_t i = 0; i < 3; ++i) {
        mixed[i] = detail::kSBox.values[mixed[i + 1]];
      }
      mixed[3] = detail::kSBox.values[first];
      mixed[0] = static_cast<uint8_t>(mixed[0] ^ round_constant);
      round_constant = detail::times_x(round_constant);
    } else if (key_words > 6 && word % key_words == 4) {
      for (uint8_t& byte : mixed) {
        byte = detail::kSBox.values[byte];
      }
    }
    for (size_t i = 0; i < 4; ++i) {
      keys.bytes[4 * word + i] = static_cast<uint8_t>(keys.bytes[4 * (word - key_words) + i] ^ mixed[i]);
    }
  }
  return keys;
}

}  // namespace veturbo::crypto
