#include "format/cipher_header.h"

#include <gtest/gtest.h>

#include "testing/errors.h"
#include "testing/memory_files.h"

namespace veturbo::format {
namespace {

constexpr std::string_view kFields =
    R"({"mode": "CTR-256", "iv": "AAECAwQFBgcICQoLDA0ODw==", "meta_data_key": "d3JhcHBlZA==", "file_timestamp": 1700000000})";

// A header as any writer of the format would make it, with these bytes for its JSON.
std::string header_of(std::string_view json) {
  std::string bytes = "Byte3ncryptM0del" + std::string(json);
  bytes.resize(kCipherHeaderBytes, '\0');
  return bytes;
}

CipherHeader parse(const std::string& bytes) {
  return parse_cipher_header(std::as_bytes(std::span(bytes)));
}

std::string with(std::string_view field, std::string_view value) {
  std::string json(kFields);
  const size_t at = json.find(field);
  json.replace(at, field.size(), value);
  return header_of(json);
}

TEST(CipherHeader, IsReadAsOthersWriteIt) {
  const CipherHeader header = parse(header_of(kFields));
  EXPECT_EQ(header.mode, CipherMode::kCtr256);
  for (size_t i = 0; i < header.iv.size(); ++i) {
    EXPECT_EQ(header.iv[i], static_cast<std::byte>(i));
  }
  EXPECT_EQ(header.wrapped_key, "d3JhcHBlZA==");
  EXPECT_EQ(header.file_timestamp, 1700000000);
}

TEST(CipherHeader, ComesBackFromItsBytes) {
  CipherHeader header;
  header.mode = CipherMode::kCtr128;
  std::copy_n(testing::pattern(16).begin(), 16, header.iv.begin());
  header.wrapped_key = std::string(4000, 'A');
  header.file_timestamp = 1234567890123;
  const std::string bytes = serialize_cipher_header(header);
  ASSERT_EQ(bytes.size(), kCipherHeaderBytes);
  const CipherHeader again = parse(bytes);
  EXPECT_EQ(again.mode, header.mode);
  EXPECT_EQ(again.iv, header.iv);
  EXPECT_EQ(again.wrapped_key, header.wrapped_key);
  EXPECT_EQ(again.file_timestamp, header.file_timestamp);
}

TEST(CipherHeader, IsKnownByItsMagic) {
  EXPECT_TRUE(has_cipher_magic(std::as_bytes(std::span(std::string_view("Byte3ncryptM0del")))));
  EXPECT_FALSE(has_cipher_magic(std::as_bytes(std::span(std::string_view("Byte3ncryptM0de")))));
  EXPECT_FALSE(has_cipher_magic(std::as_bytes(std::span(std::string_view("Byte3ncryptModel, and more")))));
  EXPECT_FALSE(has_cipher_magic({}));
}

TEST(CipherHeader, ThatIsDamagedSaysHow) {
  const std::pair<std::string, std::string> cases[] = {
      {"no magic, but more than as many bytes", "it does not begin with Byte3ncryptM0del"},
      {header_of(kFields).substr(0, 1000), "the file ends after 1000 of its 262144 bytes"},
      {"Byte3ncryptM0del" + std::string(kCipherHeaderBytes, ' '), "its JSON has no end"},
      {header_of(""), "it holds no JSON object"},
      {header_of("[1]"), "it holds no JSON object"},
      {header_of(kFields.substr(0, kFields.size() - 1)), "it holds no JSON object"},
      {header_of(std::string(100'000, '[')), "it holds no JSON object"},
      {header_of("{}"), "\"mode\" is not a text"},
      {with("\"CTR-256\"", "256"), "\"mode\" is not a text"},
      {with("CTR-256", "CBC-256"), "the cipher mode \"CBC-256\" is unknown: it is CTR-128 or CTR-256"},
      {with("\"iv\"", "\"vi\""), "\"iv\" is not a text"},
      {with("AAEC", "!AEC"), "\"iv\" is not base64"},
      {with("AAECAwQFBgcICQoLDA0ODw==", "AAECAwQFBgcICQoLDA0O"), "\"iv\" has 15 bytes, not 16"},
      {with("\"d3JhcHBlZA==\"", "null"), "\"meta_data_key\" is not a text"},
      {with("d3JhcHBlZA==", "d3JhcHBlZA"), "\"meta_data_key\" is not base64"},
      {with("1700000000", "\"today\""), "\"file_timestamp\" is not an integer"},
      {with("1700000000", "9223372036854775808"), "\"file_timestamp\" is not an integer"},
  };
  for (const auto& [bytes, expected] : cases) {
    const Error error = veturbo::testing::error_of([&] { parse(bytes); });
    EXPECT_EQ(error.kind(), ErrorKind::kFormat);
    EXPECT_EQ(error.message(), "damaged cipher header: " + expected);
  }
}

TEST(CipherHeader, NeedsNoTimestamp) {
  EXPECT_EQ(parse(with(R"(, "file_timestamp": 1700000000)", "")).file_timestamp, 0);
}

TEST(CipherHeader, WithAKeyThatIsTooLongIsNotWritten) {
  CipherHeader header;
  header.wrapped_key = std::string(kCipherHeaderBytes, 'A');
  EXPECT_EQ(veturbo::testing::error_of([&] { serialize_cipher_header(header); }).message(),
            "a wrapped key of 262144 bytes does not fit");
}

TEST(CipherMode, IsOneOfTwo) {
  EXPECT_EQ(parse_cipher_mode("CTR-128"), CipherMode::kCtr128);
  EXPECT_EQ(parse_cipher_mode("CTR-256"), CipherMode::kCtr256);
  EXPECT_EQ(cipher_key_bytes(CipherMode::kCtr128), 16U);
  EXPECT_EQ(cipher_key_bytes(CipherMode::kCtr256), 32U);
  EXPECT_EQ(veturbo::testing::error_of([] { parse_cipher_mode("ctr-128"); }).kind(), ErrorKind::kInvalidArgument);
}

}  // namespace
}  // namespace veturbo::format
