#include "crypto/aes_block.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "crypto/aes_tables.h"

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

std::vector<uint8_t> bytes(const std::string& digits) {
  std::vector<uint8_t> values;
  for (size_t i = 0; i < digits.size(); i += 2) {
    values.push_back(static_cast<uint8_t>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  return values;
}

struct Example {
  std::string key;
  std::string plaintext;
  std::string ciphertext;
};

const std::vector<Example>& examples() {
  static const std::string k128 = "2b7e151628aed2a6abf7158809cf4f3c";
  static const std::string k256 = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
  static const std::vector<Example> all = {
      // FIPS 197, appendix C.1 and C.3
      {"000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
      {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff",
       "8ea2b7ca516745bfeafc49904b496089"},
      // SP 800-38A, F.1.1
      {k128, "6bc1bee22e409f96e93d7e117393172a", "3ad77bb40d7a3660a89ecaf32466ef97"},
      {k128, "ae2d8a571e03ac9c9eb76fac45af8e51", "f5d3d58503b9699de785895a96fdbaaf"},
      {k128, "30c81c46a35ce411e5fbc1191a0a52ef", "43b1cd7f598ece23881b00e3ed030688"},
      {k128, "f69f2445df4f9b17ad2b417be66c3710", "7b0c785e27e8ad3f8223207104725dd4"},
      // F.1.5
      {k256, "6bc1bee22e409f96e93d7e117393172a", "f3eed1bdb5d2a03c064b5a7e3db181f8"},
      {k256, "ae2d8a571e03ac9c9eb76fac45af8e51", "591ccb10d410ed26dc5ba74a31362870"},
      {k256, "30c81c46a35ce411e5fbc1191a0a52ef", "b6ed21b99ca6f4f9f153e7b1beafed1d"},
      {k256, "f69f2445df4f9b17ad2b417be66c3710", "23304b7a39f9f3ff067d8d8f9e24ecc7"},
  };
  return all;
}

template <typename Tables>
std::string encrypt(const Tables& tables, const Example& example) {
  const std::vector<uint8_t> key = bytes(example.key);
  Block block;
  std::memcpy(&block, bytes(example.plaintext).data(), sizeof(block));
  block = encrypt_block(tables, expand_key(key.data(), key.size()), block);
  uint8_t result[sizeof(block)];
  std::memcpy(result, &block, sizeof(block));
  return hex(result, sizeof(result));
}

TEST(AesBlock, EncryptsWithPlainTables) {
  for (const Example& example : examples()) {
    EXPECT_EQ(encrypt(PlainTables(), example), example.ciphertext) << example.key;
  }
}

TEST(AesBlock, EncryptsWithTheTablesOfEachBank) {
  std::vector<uint32_t> memory(BankedTables::kBytes / sizeof(uint32_t));
  constexpr ColumnTable kColumns = make_column_table();
  for (unsigned lane = 0; lane < BankedTables::kBanks; ++lane) {
    // What is not of this lane's bank must not be read.
    memory.assign(memory.size(), 0xA5A5A5A5U);
    for (unsigned value = 0; value < 256; ++value) {
      BankedTables::fill_entry(memory.data(), value, kColumns.values[value], lane);
    }
    for (const Example& example : examples()) {
      EXPECT_EQ(encrypt(BankedTables(memory.data(), lane), example), example.ciphertext) << example.key << " lane " << lane;
    }
  }
}

TEST(AesBlock, PermutesBytesAsAGpuDoes) {
  EXPECT_EQ(permute_bytes(0x33221100U, 0x77665544U, 0x3210U), 0x33221100U);
  EXPECT_EQ(permute_bytes(0x33221100U, 0x77665544U, 0x0167U), 0x00116677U);
}

}  // namespace

}  // namespace veturbo::crypto
