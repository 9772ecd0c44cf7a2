#include "crypto/aes_block.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace veturbo::crypto {

namespace {

std::string hex(const uint8_t* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned>(bytes[i]));
    text += digits;
  }
  return text;
}

// FIPS 197, appendix A: the last round key of each example.
TEST(AesBlock, ExpandsA128BitKey) {
  constexpr uint8_t kKey[] = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c};
  const RoundKeys keys = expand_key(kKey, sizeof(kKey));
  EXPECT_EQ(keys.rounds, 10);
  EXPECT_EQ(hex(keys.bytes, 16), "2b7e151628aed2a6abf7158809cf4f3c");
  EXPECT_EQ(hex(keys.bytes + 16, 16), "a0fafe1788542cb123a339392a6c7605");
  EXPECT_EQ(hex(keys.bytes + 160, 16), "d014f9a8c9ee2589e13f0cc8b6630ca6");
}

TEST(AesBlock, ExpandsA256BitKey) {
  constexpr uint8_t kKey[] = {0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81,
                              0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4};
  const RoundKeys keys = expand_key(kKey, sizeof(kKey));
  EXPECT_EQ(keys.rounds, 14);
  EXPECT_EQ(hex(keys.bytes, 32), "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
  EXPECT_EQ(hex(keys.bytes + 32, 16), "9ba354118e6925afa51a8b5f2067fcde");
  EXPECT_EQ(hex(keys.bytes + 224, 16), "fe4890d1e6188d0b046df344706c631e");
}

}  // namespace

}  // namespace veturbo::crypto
