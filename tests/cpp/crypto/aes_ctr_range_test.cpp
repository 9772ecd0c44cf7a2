// The GPU kernel's arithmetic, run on the CPU: every thread of a launch in turn, with the tables that the kernel has.
#include "crypto/aes_ctr_range.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "crypto/aes_tables.h"

namespace veturbo::crypto {

namespace {

using Bytes = std::vector<unsigned char>;

struct Launch {
  unsigned groups;
  unsigned threads;  // a group
};

const std::vector<uint32_t>& banked_memory() {
  static const std::vector<uint32_t> filled = [] {
    constexpr ColumnTable kColumns = make_column_table();
    std::vector<uint32_t> memory(BankedTables::kBytes / sizeof(uint32_t));
    for (unsigned value = 0; value < 256; ++value) {
      for (unsigned lane = 0; lane < BankedTables::kBanks; ++lane) {
        BankedTables::fill_entry(memory.data(), value, kColumns.values[value], lane);
      }
    }
    return memory;
  }();
  return filled;
}

void run_all_threads(unsigned char* data, uint64_t size, uint64_t stream_offset, const Bytes& key, const Iv& iv, Launch launch) {
  const RoundKeys keys = expand_key(key.data(), key.size());
  const CtrRange range = make_ctr_range(data, size, stream_offset, iv);
  for (unsigned group = 0; group < launch.groups; ++group) {
    for (unsigned thread = 0; thread < launch.threads; ++thread) {
      const BankedTables tables(banked_memory().data(), thread % BankedTables::kBanks);
      xor_keystream(range, keys, tables, uint64_t{group} * launch.threads, uint64_t{launch.groups} * launch.threads, thread);
    }
  }
}

// Adds byte by byte, unlike what is tested.
Iv add(Iv iv, uint64_t blocks) {
  unsigned carry = 0;
  for (size_t i = iv.size(); i-- > 0;) {
    const unsigned sum = std::to_integer<unsigned>(iv[i]) + static_cast<unsigned>(blocks & 0xFFU) + carry;
    iv[i] = static_cast<std::byte>(sum);
    carry = sum >> 8U;
    blocks >>= 8U;
  }
  return iv;
}

Bytes openssl_keystream(uint64_t size, uint64_t stream_offset, const Bytes& key, const Iv& iv) {
  const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  const Iv first = add(iv, stream_offset / kBlockBytes);
  const EVP_CIPHER* cipher = key.size() == 16 ? EVP_aes_128_ctr() : EVP_aes_256_ctr();
  EXPECT_EQ(EVP_EncryptInit_ex(context.get(), cipher, nullptr, key.data(), reinterpret_cast<const unsigned char*>(first.data())),
            1);
  const uint64_t in_block = stream_offset % kBlockBytes;
  Bytes stream(in_block + size);
  int written = 0;
  EXPECT_EQ(EVP_EncryptUpdate(context.get(), stream.data(), &written, stream.data(), static_cast<int>(stream.size())), 1);
  stream.erase(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(in_block));
  return stream;
}

Bytes test_key(size_t size) {
  Bytes key(size);
  for (size_t i = 0; i < size; ++i) {
    key[i] = static_cast<unsigned char>(37 * i + 11);
  }
  return key;
}

Iv make_iv(uint64_t high, uint64_t low) {
  Iv iv;
  for (size_t i = 0; i < 8; ++i) {
    iv[7 - i] = static_cast<std::byte>(high >> (8 * i));
    iv[15 - i] = static_cast<std::byte>(low >> (8 * i));
  }
  return iv;
}

// 16 bytes before and after each range must stay as they are. `keystream` begins at `stream_offset` and may be longer than
// `size`.
void expect_keystream(const Bytes& keystream, uint64_t size, uint64_t stream_offset, size_t alignment, const Bytes& key,
                      const Iv& iv, Launch launch) {
  alignas(16) std::array<unsigned char, 2048> memory;
  ASSERT_LE(size + 48, memory.size());
  for (size_t i = 0; i < memory.size(); ++i) {
    memory[i] = static_cast<unsigned char>(i * 7 + 1);
  }
  std::array<unsigned char, 2048> expected = memory;
  for (size_t i = 0; i < size; ++i) {
    expected[16 + alignment + i] ^= keystream[i];
  }
  run_all_threads(memory.data() + 16 + alignment, size, stream_offset, key, iv, launch);
  const auto differs = std::mismatch(memory.begin(), memory.end(), expected.begin()).first;
  EXPECT_EQ(differs - memory.begin(), static_cast<std::ptrdiff_t>(memory.size()))
      << "size " << size << " offset " << stream_offset << " alignment " << alignment << " key " << key.size() << " groups "
      << launch.groups << " threads " << launch.threads;
}

const std::vector<Iv>& test_ivs() {
  constexpr uint64_t kMax = UINT64_MAX;
  static const std::vector<Iv> ivs = {
      make_iv(0, 0),
      make_iv(0x0123456789ABCDEFU, 0xFEDCBA9876543210U),
      make_iv(5, 0xFFFFFFFFU - 1),  // carries into the second word
      make_iv(5, kMax - 1),         // into the third
      make_iv(0xFFFFFFFFU, kMax),   // into the fourth
      make_iv(kMax, kMax - 2),      // 2^128 - 3: begins again at zero
  };
  return ivs;
}

const uint64_t kOffsets[] = {
    0,
    1,
    7,
    8,
    15,
    16,
    17,
    4 * 16 + 3,
    (uint64_t{1} << 36) - 5,  // 2^32 blocks are reached inside of the range
    (uint64_t{1} << 36) + 16 * 9 + 8,
    UINT64_MAX - 1500,
};

TEST(AesCtrRange, IsOpensslsStreamAtEveryAlignment) {
  for (const size_t key_bytes : {16, 32}) {
    const Bytes key = test_key(key_bytes);
    for (const Iv& iv : test_ivs()) {
      for (const uint64_t offset : kOffsets) {
        const Bytes keystream = openssl_keystream(200, offset, key, iv);
        for (const uint64_t size : {0, 1, 2, 15, 16, 17, 31, 33, 200}) {
          for (size_t alignment = 0; alignment < 16; ++alignment) {
            expect_keystream(keystream, size, offset, alignment, key, iv, {1, 2});
          }
        }
      }
    }
  }
}

TEST(AesCtrRange, IsTheSameForAnyNumberOfThreads) {
  const Bytes key = test_key(32);
  const Iv iv = test_ivs().back();
  const Bytes keystream = openssl_keystream(1500, 8, key, iv);
  for (const Launch launch : {Launch{1, 1}, {1, 3}, {1, 32}, {2, 32}, {3, 5}, {7, 1}, {2, 64}, {1, 1024}, {3, 1024}}) {
    for (const uint64_t size : {1, 16, 500, 512, 1024, 1500}) {
      for (const size_t alignment : {0, 3, 8}) {
        expect_keystream(keystream, size, 8, alignment, key, iv, launch);
      }
    }
  }
}

// The end of each piece and the begin of the next share a block.
TEST(AesCtrRange, PiecesMakeTheWhole) {
  const Bytes key = test_key(16);
  const Iv iv = make_iv(0, 0xFFFFFFFFFFFFFFF0U);
  const Bytes keystream = openssl_keystream(1000, 3, key, iv);
  for (const uint64_t piece : {1, 5, 16, 24, 333}) {
    Bytes memory(1000);
    for (uint64_t done = 0; done < memory.size(); done += piece) {
      run_all_threads(memory.data() + done, std::min<uint64_t>(piece, memory.size() - done), 3 + done, key, iv, {1, 4});
    }
    EXPECT_EQ(memory, keystream) << piece;
  }
}

// SP 800-38A, F.5.1 and F.5.5.
TEST(AesCtrRange, EncryptsTheExamplesOfTheStandard) {
  const Bytes plaintext = {0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a,
                           0xae, 0x2d, 0x8a, 0x57, 0x1e, 0x03, 0xac, 0x9c, 0x9e, 0xb7, 0x6f, 0xac, 0x45, 0xaf, 0x8e, 0x51,
                           0x30, 0xc8, 0x1c, 0x46, 0xa3, 0x5c, 0xe4, 0x11, 0xe5, 0xfb, 0xc1, 0x19, 0x1a, 0x0a, 0x52, 0xef,
                           0xf6, 0x9f, 0x24, 0x45, 0xdf, 0x4f, 0x9b, 0x17, 0xad, 0x2b, 0x41, 0x7b, 0xe6, 0x6c, 0x37, 0x10};
  const Iv iv = make_iv(0xf0f1f2f3f4f5f6f7U, 0xf8f9fafbfcfdfeffU);
  const Bytes key_128 = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c};
  const Bytes key_256 = {0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81,
                         0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4};
  const Bytes with_128 = {0x87, 0x4d, 0x61, 0x91, 0xb6, 0x20, 0xe3, 0x26, 0x1b, 0xef, 0x68, 0x64, 0x99, 0x0d, 0xb6, 0xce,
                          0x98, 0x06, 0xf6, 0x6b, 0x79, 0x70, 0xfd, 0xff, 0x86, 0x17, 0x18, 0x7b, 0xb9, 0xff, 0xfd, 0xff,
                          0x5a, 0xe4, 0xdf, 0x3e, 0xdb, 0xd5, 0xd3, 0x5e, 0x5b, 0x4f, 0x09, 0x02, 0x0d, 0xb0, 0x3e, 0xab,
                          0x1e, 0x03, 0x1d, 0xda, 0x2f, 0xbe, 0x03, 0xd1, 0x79, 0x21, 0x70, 0xa0, 0xf3, 0x00, 0x9c, 0xee};
  const Bytes with_256 = {0x60, 0x1e, 0xc3, 0x13, 0x77, 0x57, 0x89, 0xa5, 0xb7, 0xa7, 0xf5, 0x04, 0xbb, 0xf3, 0xd2, 0x28,
                          0xf4, 0x43, 0xe3, 0xca, 0x4d, 0x62, 0xb5, 0x9a, 0xca, 0x84, 0xe9, 0x90, 0xca, 0xca, 0xf5, 0xc5,
                          0x2b, 0x09, 0x30, 0xda, 0xa2, 0x3d, 0xe9, 0x4c, 0xe8, 0x70, 0x17, 0xba, 0x2d, 0x84, 0x98, 0x8d,
                          0xdf, 0xc9, 0xc5, 0x8d, 0xb6, 0x7a, 0xad, 0xa6, 0x13, 0xc2, 0xdd, 0x08, 0x45, 0x79, 0x41, 0xa6};
  for (const auto& [key, ciphertext] : {std::pair(key_128, with_128), std::pair(key_256, with_256)}) {
    Bytes data = plaintext;
    run_all_threads(data.data(), data.size(), 0, key, iv, {1, 3});
    EXPECT_EQ(data, ciphertext) << key.size();
  }
}

}  // namespace

}  // namespace veturbo::crypto
