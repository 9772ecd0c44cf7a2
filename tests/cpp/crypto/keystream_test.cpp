#include "crypto/keystream.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <tuple>

#include "crypto/counter.h"

namespace veturbo::crypto {

namespace {

using Bytes = std::vector<std::byte>;

Bytes from_hex(std::string_view hex) {
  Bytes bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

Bytes random_bytes(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::byte>(random()); });
  return bytes;
}

DataKey key_of(std::span<const std::byte> key, std::span<const std::byte> iv) {
  return make_data_key(Secret(key), iv, "key", "iv");
}

// OpenSSL's AES-CTR from the start of the stream, in one call: what every implementation is held against.
Bytes reference(const Bytes& key, const Bytes& iv, const Bytes& in) {
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  Bytes out(in.size());
  int written = 0;
  const auto uchar = [](const Bytes& bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); };
  EXPECT_EQ(EVP_EncryptInit_ex(context, key.size() == 16 ? EVP_aes_128_ctr() : EVP_aes_256_ctr(), nullptr, uchar(key), uchar(iv)),
            1);
  EXPECT_EQ(
      EVP_EncryptUpdate(context, reinterpret_cast<unsigned char*>(out.data()), &written, uchar(in), static_cast<int>(in.size())),
      1);
  EVP_CIPHER_CTX_free(context);
  return out;
}

class KeystreamTest : public testing::TestWithParam<CipherImplementation> {
 protected:
  void SetUp() override {
    const std::vector<CipherImplementation> available = available_implementations();
    if (std::find(available.begin(), available.end(), GetParam()) == available.end()) {
      GTEST_SKIP() << "this processor does not have the instructions of " << implementation_name(GetParam());
    }
  }

  std::unique_ptr<Keystream> keystream(const Bytes& key, const Bytes& iv) const {
    return make_keystream(key_of(key, iv), GetParam());
  }
};

// NIST SP 800-38A, F.5.1 and F.5.5.
constexpr std::string_view kNistIv = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
constexpr std::string_view kNistPlain =
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c"
    "3"
    "710";

TEST_P(KeystreamTest, GivesNistsVectors) {
  const std::tuple<std::string_view, std::string_view> cases[] = {
      {"2b7e151628aed2a6abf7158809cf4f3c",
       "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f"
       "3009"
       "cee"},
      {"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
       "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c52b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd084"
       "57941"
       "a6"}};
  for (const auto& [key, cipher] : cases) {
    Bytes bytes = from_hex(kNistPlain);
    keystream(from_hex(key), from_hex(kNistIv))->apply(0, bytes);
    EXPECT_EQ(bytes, from_hex(cipher));
  }
}

// A counter that wraps around in 128 bits, one that carries from the lower 64 into the upper, and ordinary ones; each soon and
// within the vectors of every width.
TEST_P(KeystreamTest, EqualsOpenSslFromAnyByteToAnyOther) {
  constexpr size_t kSize = 5000;
  const Bytes plain = random_bytes(kSize, 1);
  for (const std::string_view iv_hex :
       {"00000000000000000000000000000000", "fffffffffffffffffffffffffffffffd", "0123456789abcdeffffffffffffffff0",
        "0123456789abcdefffffffffffffffdd", "ffffffffffffffffffffffffffffff85", "00000000ffffffff00000000fffffffe"}) {
    const Bytes iv = from_hex(iv_hex);
    for (const size_t key_bytes : {16, 32}) {
      const Bytes key = random_bytes(key_bytes, 2);
      const Bytes expected = reference(key, iv, plain);
      const auto stream = keystream(key, iv);
      std::mt19937 random(3);
      for (int turn = 0; turn < 400; ++turn) {
        const size_t begin = turn == 0 ? 0 : random() % kSize;
        const size_t most = kSize - begin;
        const size_t size = turn == 0 ? kSize : turn % 2 == 0 ? random() % (most + 1) : random() % std::min<size_t>(most, 70);
        Bytes out(size + 2, std::byte{0xA5});
        stream->apply(begin, std::span(plain).subspan(begin, size), out.data() + 1);
        ASSERT_TRUE(std::equal(out.begin() + 1, out.end() - 1, expected.begin() + static_cast<ptrdiff_t>(begin)))
            << iv_hex << " from " << begin << ", " << size << " bytes";
        ASSERT_EQ(out.front(), std::byte{0xA5});
        ASSERT_EQ(out.back(), std::byte{0xA5});
      }
    }
  }
}

TEST_P(KeystreamTest, DecryptsInPlace) {
  const Bytes key = random_bytes(32, 4);
  const Bytes iv = random_bytes(16, 5);
  const Bytes plain = random_bytes(1'000'003, 6);
  Bytes bytes = reference(key, iv, plain);
  keystream(key, iv)->apply(0, bytes);
  EXPECT_EQ(bytes, plain);
}

TEST_P(KeystreamTest, ReachesOffsetsBeyond32BitsOfBlocks) {
  const Bytes key = random_bytes(16, 7);
  constexpr uint64_t kBlock = uint64_t{3} << 33;
  Bytes iv(16);
  const Bytes plain = random_bytes(333, 8);
  const Iv moved = iv_of(counter_of(Iv{}) + kBlock);
  const Bytes expected = reference(key, Bytes(moved.begin(), moved.end()), plain);
  Bytes bytes = plain;
  keystream(key, iv)->apply(kBlock * kBlockBytes, bytes);
  EXPECT_EQ(bytes, expected);
}

TEST_P(KeystreamTest, TakesTheLastByteThatAnOffsetCanName) {
  const Bytes key = random_bytes(16, 9);
  const auto stream = keystream(key, Bytes(16));
  Bytes together = random_bytes(40, 10);
  Bytes apart = together;
  stream->apply(UINT64_MAX - 40, together);
  for (size_t i = 0; i < apart.size(); ++i) {
    stream->apply(UINT64_MAX - 40 + i, std::span(apart).subspan(i, 1));
  }
  EXPECT_EQ(together, apart);
}

TEST_P(KeystreamTest, ServesManyThreadsAtOnce) {
  const Bytes key = random_bytes(16, 11);
  const Bytes iv = random_bytes(16, 12);
  const Bytes plain = random_bytes(1 << 20, 13);
  const Bytes expected = reference(key, iv, plain);
  const auto stream = keystream(key, iv);
  Bytes bytes = plain;
  constexpr size_t kThreads = 8;
  constexpr size_t kPiece = 1001;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (size_t begin = i * kPiece; begin < bytes.size(); begin += kThreads * kPiece) {
        stream->apply(begin, std::span(bytes).subspan(begin, std::min(kPiece, bytes.size() - begin)));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(bytes, expected);
}

INSTANTIATE_TEST_SUITE_P(All, KeystreamTest,
                         testing::Values(CipherImplementation::kOpenSsl, CipherImplementation::kAesNi,
                                         CipherImplementation::kVaes256, CipherImplementation::kVaes512),
                         [](const auto& info) { return std::string(implementation_name(info.param)); });

TEST(Counter, CarriesThroughAll128Bits) {
  Iv last;
  last.fill(std::byte{0xFF});
  EXPECT_EQ(iv_of(counter_of(last) + 1), Iv{});
  EXPECT_EQ(iv_of(counter_of(Iv{}) - 1), last);
  Iv half{};
  std::fill(half.begin() + 8, half.end(), std::byte{0xFF});
  Iv next{};
  next[7] = std::byte{1};
  next[15] = std::byte{4};
  EXPECT_EQ(iv_of(counter_of(half) + 5), next);
}

}  // namespace

}  // namespace veturbo::crypto
