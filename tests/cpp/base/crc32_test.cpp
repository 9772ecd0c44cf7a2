#include "base/crc32.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace veturbo {

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::vector<std::byte> random_bytes(size_t size) {
  std::mt19937 random(7);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(random());
  }
  return bytes;
}

// The definition, bit by bit.
uint32_t defined_crc32(std::span<const std::byte> bytes) {
  uint32_t rest = 0xffffffff;
  for (const std::byte byte : bytes) {
    rest ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      rest = (rest >> 1) ^ ((rest & 1) != 0 ? 0xedb88320 : 0);
    }
  }
  return ~rest;
}

}  // namespace

TEST(Crc32, HasThePublishedValues) {
  for (const auto of : {crc32, portable_crc32}) {
    EXPECT_EQ(of(bytes_of(""), 0), 0u);
    EXPECT_EQ(of(bytes_of("123456789"), 0), 0xcbf43926u);
    EXPECT_EQ(of(bytes_of("The quick brown fox jumps over the lazy dog"), 0), 0x414fa339u);
  }
}

TEST(Crc32, IsWhatTheDefinitionSaysForAnySizeAndAlignment) {
  const std::vector<std::byte> bytes = random_bytes(700);
  for (size_t begin = 0; begin < 17; ++begin) {
    for (size_t size = 0; size < 400; ++size) {
      const std::span<const std::byte> part = std::span(bytes).subspan(begin, size);
      const uint32_t expected = defined_crc32(part);
      ASSERT_EQ(crc32(part), expected) << size << " bytes from " << begin << " on";
      ASSERT_EQ(portable_crc32(part), expected) << size << " bytes from " << begin << " on";
    }
  }
}

TEST(Crc32, OfManyBytesIsTheSameWithAndWithoutVectors) {
  const std::vector<std::byte> bytes = random_bytes((size_t{1} << 20) + 13);
  EXPECT_EQ(crc32(bytes), portable_crc32(bytes));
  EXPECT_EQ(crc32(bytes), defined_crc32(bytes));
}

TEST(Crc32, GoesOnFromThePartBefore) {
  const std::vector<std::byte> bytes = random_bytes(1000);
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{500}, size_t{1000}}) {
    const std::span<const std::byte> first = std::span(bytes).first(cut);
    const std::span<const std::byte> second = std::span(bytes).subspan(cut);
    EXPECT_EQ(crc32(second, crc32(first)), crc32(bytes)) << cut;
    EXPECT_EQ(portable_crc32(second, portable_crc32(first)), crc32(bytes)) << cut;
    EXPECT_EQ(combined_crc32(crc32(first), crc32(second), second.size()), crc32(bytes)) << cut;
  }
}

TEST(Crc32, IsCombinedForPartsTooLargeToBeGoneThrough) {
  // 2^40 zeros, as halves that are doubled and as a small part before a large one.
  const std::byte zero = {};
  const auto zeros = [&](int doublings) {
    uint32_t checksum = crc32({&zero, 1});
    for (int i = 0; i < doublings; ++i) {
      checksum = combined_crc32(checksum, checksum, uint64_t{1} << i);
    }
    return checksum;
  };
  EXPECT_EQ(zeros(20), crc32(std::vector<std::byte>(size_t{1} << 20)));
  uint32_t grown = zeros(0);
  for (int i = 0; i < 40; ++i) {
    grown = combined_crc32(grown, zeros(i), uint64_t{1} << i);
  }
  EXPECT_EQ(grown, zeros(40));
}

}  // namespace veturbo
