#include "base/base64.h"

#include <gtest/gtest.h>

namespace veturbo {

namespace {

std::string encode(std::string_view text) {
  return base64_encode(std::as_bytes(std::span(text)));
}

// The test vectors of RFC 4648, section 10.
constexpr std::pair<std::string_view, std::string_view> kVectors[] = {
    {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
};

TEST(Base64, EncodesTheVectorsOfTheRfc) {
  for (const auto& [plain, text] : kVectors) {
    EXPECT_EQ(encode(plain), text);
  }
}

TEST(Base64, DecodesTheVectorsOfTheRfc) {
  for (const auto& [plain, text] : kVectors) {
    const auto decoded = base64_decode(text);
    ASSERT_TRUE(decoded) << text;
    EXPECT_EQ(decoded->text(), plain);
  }
}

TEST(Base64, ReturnsEveryByteValue) {
  std::string all;
  for (int i = 0; i < 256; ++i) {
    all += static_cast<char>(i);
  }
  EXPECT_EQ(base64_decode(encode(all))->text(), all);
}

TEST(Base64, RefusesWhatIsNotBase64) {
  for (const std::string_view text :
       {"Zg", "Zg=", "Z===", "====", "Zm9v\n", "Zm 9v===", "Zg==Zg==", "Zm9-", "Zm9_", "=Zm9", "Zh==", "Zm9=", "Zm\xC3\xA9="}) {
    EXPECT_FALSE(base64_decode(text)) << text;
  }
}

}  // namespace

}  // namespace veturbo
