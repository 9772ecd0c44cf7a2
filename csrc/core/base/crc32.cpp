// Bytes are taken for a polynomial over GF(2), the first one's lowest bit for the highest power, and their checksum is what is
// left of it, times x^32, after a division by kPolynomial. That rest stays the same when a part of the polynomial is replaced by
// another with the same rest: 128 bits that stand d bits before the end may be dropped if their two halves, times x^d's rest, are
// added to what stands there. So four vectors of 128 bits are carried through the memory, 512 bits at a step, with two carry-less
// multiplications each; only the last of them is divided bit for bit, by tables.
#include "base/crc32.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace veturbo {

namespace {

static_assert(std::endian::native == std::endian::little);

// Bit 31 is the power 0, bit 0 the power 31; x^32 goes without saying.
constexpr uint32_t kPolynomial = 0xedb88320;
constexpr uint32_t kOne = 0x80000000;

constexpr uint32_t times_x(uint32_t value) {
  return (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
}

constexpr uint32_t product(uint32_t a, uint32_t b) {
  uint32_t sum = 0;
  for (; a != 0; a <<= 1) {
    sum ^= (a & kOne) != 0 ? b : 0;
    b = times_x(b);
  }
  return sum;
}

constexpr uint32_t power_of_x(uint64_t exponent) {
  uint32_t result = kOne;
  for (uint32_t square = kOne >> 1; exponent != 0; exponent >>= 1) {
    result = (exponent & 1) != 0 ? product(result, square) : result;
    square = product(square, square);
  }
  return result;
}

// What a byte adds to the checksum if as many bytes as the first index says come after it.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables = {};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) {
      value = times_x(value);
    }
    tables[0][byte] = value;
  }
  for (size_t after = 1; after < tables.size(); ++after) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t value = tables[after - 1][byte];
      tables[after][byte] = (value >> 8) ^ tables[0][value & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

// Works on the rest of the division, which the checksum is the complement of.
uint32_t divide(std::span<const std::byte> bytes, uint32_t rest) {
  while (bytes.size() >= 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    word ^= rest;
    rest = 0;
    for (size_t i = 0; i < 8; ++i) {
      rest ^= kTables[7 - i][word >> (8 * i) & 0xff];
    }
    bytes = bytes.subspan(8);
  }
  for (const std::byte byte : bytes) {
    rest = (rest >> 8) ^ kTables[0][(rest ^ static_cast<uint32_t>(byte)) & 0xff];
  }
  return rest;
}

#if defined(__x86_64__)

#define VETURBO_CLMUL_TARGET __attribute__((target("pclmul,sse4.1")))

constexpr size_t kVectorBytes = 16;
constexpr size_t kVectors = 4;  // as many as the multiplier works on at once
constexpr size_t kStepBytes = kVectors * kVectorBytes;

// What both halves of a vector are multiplied with so that they count for one that stands so many bits behind: the lower half,
// which comes first, is 64 bits further away. That a product of two 64-bit numbers has 127 bits is made up for by one bit here.
VETURBO_CLMUL_TARGET __m128i factors(int distance) {
  const uint64_t lower = uint64_t{power_of_x(static_cast<uint64_t>(distance) + 32)} << 1;
  const uint64_t upper = uint64_t{power_of_x(static_cast<uint64_t>(distance) - 32)} << 1;
  return _mm_set_epi64x(static_cast<int64_t>(upper), static_cast<int64_t>(lower));
}

VETURBO_CLMUL_TARGET __m128i load(const std::byte* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

VETURBO_CLMUL_TARGET __m128i moved_onto(__m128i vector, __m128i by, __m128i target) {
  const __m128i low = _mm_clmulepi64_si128(vector, by, 0x00);
  const __m128i high = _mm_clmulepi64_si128(vector, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), target);
}

// At least one step.
VETURBO_CLMUL_TARGET uint32_t divide_vectors(std::span<const std::byte> bytes, uint32_t rest) {
  __m128i vectors[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    vectors[i] = load(bytes.data() + i * kVectorBytes);
  }
  vectors[0] = _mm_xor_si128(vectors[0], _mm_cvtsi32_si128(static_cast<int>(rest)));
  const __m128i by_step = factors(8 * kStepBytes);
  for (bytes = bytes.subspan(kStepBytes); bytes.size() >= kStepBytes; bytes = bytes.subspan(kStepBytes)) {
    for (size_t i = 0; i < kVectors; ++i) {
      vectors[i] = moved_onto(vectors[i], by_step, load(bytes.data() + i * kVectorBytes));
    }
  }
  const __m128i by_vector = factors(8 * kVectorBytes);
  for (size_t i = 1; i < kVectors; ++i) {
    vectors[i] = moved_onto(vectors[i - 1], by_vector, vectors[i]);
  }
  std::array<std::byte, kVectorBytes> last;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(last.data()), vectors[kVectors - 1]);
  return divide(bytes, divide(last, 0));
}

bool has_vectors() {
  return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

#else

constexpr size_t kStepBytes = 1;

uint32_t divide_vectors(std::span<const std::byte> bytes, uint32_t rest) {
  return divide(bytes, rest);
}

bool has_vectors() {
  return false;
}

#endif

}  // namespace

uint32_t portable_crc32(std::span<const std::byte> bytes, uint32_t before) {
  return ~divide(bytes, ~before);
}

uint32_t crc32(std::span<const std::byte> bytes, uint32_t before) {
  if (bytes.size() < kStepBytes || !has_vectors()) {
    return portable_crc32(bytes, before);
  }
  return ~divide_vectors(bytes, ~before);
}

uint32_t combined_crc32(uint32_t first, uint32_t second, uint64_t second_size) {
  return product(first, power_of_x(8 * second_size)) ^ second;
}

}  // namespace veturbo
