#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

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

// A block as its four columns: byte i is bits 8 * (i % 4) and up of words[i / 4], which is how a little-endian machine loads it.
struct alignas(16) Block {
  uint32_t words[4];
};
static_assert(std::endian::native == std::endian::little);

VETURBO_HOST_DEVICE constexpr uint32_t rotate_left(uint32_t word, unsigned bits) {
  return (word << bits) | (word >> (32U - bits));
}

// Byte i of the result is that of the eight bytes of `low` and `high` which digit i of `selector` (hexadecimal, the last one is
// digit 0) numbers.
VETURBO_HOST_DEVICE inline uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
#ifdef __CUDA_ARCH__
  return __byte_perm(low, high, selector);
#else
  const uint64_t bytes = (uint64_t{high} << 32U) | low;
  uint32_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned number = (selector >> (4 * i)) & 7U;
    result |= static_cast<uint32_t>((bytes >> (8 * number)) & 0xFFU) << (8 * i);
  }
  return result;
#endif
}

// What a round (SubBytes, ShiftRows, MixColumns) makes of one byte in row 0: the column that it adds to the result. The same byte
// in row r adds that column rotated by r bytes.
struct ColumnTable {
  uint32_t values[256];
};

constexpr ColumnTable make_column_table() {
  ColumnTable table{};
  for (size_t i = 0; i < 256; ++i) {
    const uint8_t s = detail::kSBox.values[i];
    const uint8_t twice = detail::times_x(s);
    table.values[i] =
        uint32_t{twice} | (uint32_t{s} << 8U) | (uint32_t{s} << 16U) | (uint32_t{static_cast<uint8_t>(twice ^ s)} << 24U);
  }
  return table;
}

VETURBO_HOST_DEVICE inline uint32_t round_key_word(const RoundKeys& keys, int round, int column) {
  uint32_t word;
  std::memcpy(&word, keys.bytes + 16 * round + 4 * column, sizeof(word));
  return word;
}

// Encrypts one block. Tables says where the columns are looked up: row0(word, i) is what byte i of `word` adds from row 0, row1()
// the same from row 1; rows 2 and 3 are those two, rotated together. `i` is a constant wherever this is inlined.
template <typename Tables>
VETURBO_HOST_DEVICE inline Block encrypt_block(const Tables& tables, const RoundKeys& keys, Block block) {
  uint32_t s[4];
  for (int c = 0; c < 4; ++c) {
    s[c] = block.words[c] ^ round_key_word(keys, 0, c);
  }
  for (int round = 1; round < keys.rounds; ++round) {
    uint32_t t[4];
    for (int c = 0; c < 4; ++c) {
      const uint32_t rows01 = tables.row0(s[c], 0) ^ tables.row1(s[(c + 1) % 4], 1);
      const uint32_t rows23 = tables.row0(s[(c + 2) % 4], 2) ^ tables.row1(s[(c + 3) % 4], 3);
      t[c] = rows01 ^ rotate_left(rows23, 16) ^ round_key_word(keys, round, c);
    }
    for (int c = 0; c < 4; ++c) {
      s[c] = t[c];
    }
  }
  // The last round has no MixColumns. Bytes 1 and 2 of a column from row 0, and bytes 2 and 3 of one from row 1, are the S-box.
  for (int c = 0; c < 4; ++c) {
    const uint32_t bytes = ((tables.row0(s[c], 0) >> 8U) & 0xFFU) | (tables.row0(s[(c + 1) % 4], 1) & 0xFF00U) |
                           (tables.row0(s[(c + 2) % 4], 2) & 0xFF0000U) | (tables.row1(s[(c + 3) % 4], 3) & 0xFF000000U);
    block.words[c] = bytes ^ round_key_word(keys, keys.rounds, c);
  }
  return block;
}

}  // namespace veturbo::crypto
