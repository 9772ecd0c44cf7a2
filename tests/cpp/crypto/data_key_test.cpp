#include "crypto/data_key.h"

#include <gtest/gtest.h>

#include "testing/errors.h"

namespace veturbo::crypto {

namespace {

DataKey make(size_t key_bytes, size_t iv_bytes) {
  return make_data_key(Secret(key_bytes), std::vector<std::byte>(iv_bytes), "VETURBOIO_KEY", "VETURBOIO_IV");
}

TEST(DataKey, Has16Or32Bytes) {
  EXPECT_EQ(make(16, 16).key.size(), 16U);
  EXPECT_EQ(make(32, 16).key.size(), 32U);
}

TEST(DataKey, OfAnotherLengthIsRefusedByName) {
  EXPECT_EQ(veturbo::testing::error_of([] { make(24, 16); }).message(), "VETURBOIO_KEY has 24 bytes: AES-CTR takes 16 or 32");
  EXPECT_EQ(veturbo::testing::error_of([] { make(0, 16); }).message(), "VETURBOIO_KEY has 0 bytes: AES-CTR takes 16 or 32");
  EXPECT_EQ(veturbo::testing::error_of([] { make(32, 12); }).message(), "VETURBOIO_IV has 12 bytes: AES-CTR takes 16");
}

TEST(Secret, GrowsByWhatIsAppended) {
  Secret secret;
  std::string expected;
  for (int i = 0; i < 1000; ++i) {
    secret.append("piece");
    expected += "piece";
  }
  EXPECT_EQ(secret.text(), expected);
}

TEST(Secret, IsGoneFromWhereItWasMovedFrom) {
  Secret first(std::string_view("secret"));
  Secret second(std::move(first));
  EXPECT_EQ(second.text(), "secret");
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move): that is the question
}

TEST(Secret, OverwritesWhatItShrinksBy) {
  Secret secret(std::string_view("secret"));
  const std::byte* const memory = secret.bytes().data();
  secret.shrink(2);
  EXPECT_EQ(secret.text(), "se");
  EXPECT_EQ(memory[2], std::byte{0});
  EXPECT_EQ(memory[5], std::byte{0});
}

}  // namespace

}  // namespace veturbo::crypto
