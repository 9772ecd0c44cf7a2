// What an encrypted file is beyond what conformance_test.cpp asks of it.
#include "storage/encrypted_file.h"

#include <gtest/gtest.h>

#include "testing/errors.h"
#include "testing/memory_files.h"

namespace veturbo::storage {
namespace {

using testing::pattern;

std::shared_ptr<const crypto::Keystream> keystream() {
  return crypto::make_keystream(crypto::make_data_key(Secret(pattern(16, 5)), pattern(16, 6), "key", "iv"));
}

std::vector<std::byte> encrypted(std::vector<std::byte> bytes) {
  keystream()->apply(0, bytes);
  return bytes;
}

TEST(EncryptedFile, IsTheHeaderAndThenTheStreamFromItsStart) {
  const std::vector<std::byte> plain = pattern(1000);
  auto memory = std::make_unique<testing::MemoryWritableFile>(1005);
  const testing::MemoryWritableFile& file = *memory;
  EncryptedFile encrypted_file(std::move(memory), "12345", keystream(), "");
  encrypted_file.write_at(600, std::span(plain).subspan(600));
  encrypted_file.write_at(0, std::span(plain).first(600));
  std::vector<std::byte> expected = encrypted(plain);
  for (const char c : {'5', '4', '3', '2', '1'}) {
    expected.insert(expected.begin(), static_cast<std::byte>(c));
  }
  EXPECT_EQ(file.bytes(), expected);
}

TEST(EncryptedFile, LeavesTheCallersBytesAsTheyAre) {
  const std::vector<std::byte> plain = pattern(300'000);
  const std::vector<std::byte> before = plain;
  EncryptedFile file(std::make_unique<testing::MemoryWritableFile>(plain.size()), "", keystream(), "");
  file.write_at(0, plain);
  EXPECT_EQ(plain, before);
}

TEST(EncryptedFile, PassesOnWhatItIsToWarnOf) {
  EncryptedFile file(std::make_unique<testing::MemoryWritableFile>(1), "", keystream(), "the same key again");
  EXPECT_EQ(file.warnings(), std::vector<std::string>{"memory://file: the same key again"});
}

TEST(DecryptedFile, ReadsInPieces) {
  const std::vector<std::byte> plain = pattern(5000);
  auto memory = std::make_unique<testing::MemoryReadableFile>(encrypted(plain));
  const testing::MemoryReadableFile& inner = *memory;
  DecryptedFile file(std::move(memory), 0, keystream());
  std::vector<std::byte> out(2500);
  file.read_at(1000, out);
  EXPECT_TRUE(std::equal(out.begin(), out.end(), plain.begin() + 1000));
  EXPECT_EQ(inner.reads(), 4) << "to 1024, 2048, 3072 and 3500";
}

TEST(DecryptedFile, TellsWhereInTheFileAReadFailed) {
  auto memory = std::make_unique<testing::MemoryReadableFile>(pattern(5100), /*fail_at=*/3);
  DecryptedFile file(std::move(memory), 100, keystream());
  std::vector<std::byte> out(5000);
  const Error error = testing::error_of([&] { file.read_at(0, out); });
  EXPECT_EQ(error.code(), EIO);
  EXPECT_EQ(error.offset(), 2148U);
}

TEST(DecryptedFile, CannotBeMapped) {
  const DecryptedFile file(std::make_unique<testing::MemoryReadableFile>(pattern(10)), 0, keystream());
  EXPECT_FALSE(file.traits().mappable);
  EXPECT_EQ(testing::error_of([&] { file.map(); }).message(),
            "memory://file: an encrypted file cannot be mapped into memory: load it without mmap");
}

}  // namespace
}  // namespace veturbo::storage
