// Headers at the edges of their numbers, and as large as they get.
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/concat.h"
#include "format/cipher_header.h"
#include "format/safetensors.h"
#include "testing/errors.h"

namespace veturbo::format {
namespace {

using namespace std::string_literals;

constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kExbibyte = uint64_t{1} << 60U;

std::string entry(std::string_view name, std::string_view shape, uint64_t begin, uint64_t end) {
  return concat('"', name, R"(":{"dtype":"U8","shape":)", shape, R"(,"data_offsets":[)", begin, ',', end, "]}");
}

std::string one(std::string_view shape, uint64_t begin, uint64_t end) {
  return concat('{', entry("a", shape, begin, end), '}');
}

std::string refusal(const std::string& json, uint64_t file_size) {
  const Error error = testing::error_of([&] { parse_header(json, file_size); });
  EXPECT_EQ(error.kind(), ErrorKind::kFormat);
  EXPECT_LE(error.offset().value_or(kMost), file_size) << error.what();
  return error.tensor().substr(0, 16) + (error.tensor().empty() ? "" : ": ") + error.cause();
}

uint64_t length_of(uint64_t length, uint64_t file_size) {
  std::string bytes(kHeaderLengthBytes, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(length >> (8 * i));
  }
  return parse_header_length(std::as_bytes(std::span(bytes)), file_size);
}

// So many tensors of 2^60 bytes, one after the other; the largest that a tensor can be is not twice as large.
std::string exbibytes(uint64_t tensors) {
  std::string json = "{";
  for (uint64_t i = 0; i < tensors; ++i) {
    json += (i > 0 ? "," : "") + entry(std::to_string(i), concat('[', kExbibyte, ']'), i * kExbibyte, (i + 1) * kExbibyte);
  }
  return json + "}";
}

TEST(ExtremeHeaders, HaveOffsetsUpTo64Bits) {
  for (const uint64_t tensors : {7, 8, 15}) {  // below 2^63, to there and beyond
    const std::string json = exbibytes(tensors);
    const SafetensorsHeader header = parse_header(json, kHeaderLengthBytes + json.size() + tensors * kExbibyte);
    EXPECT_EQ(header.tensors.back().end, tensors * kExbibyte);
    EXPECT_EQ(refusal(json, kHeaderLengthBytes + json.size() + 4),
              concat("the tensors end at ", tensors * kExbibyte, " but the file has only 4 bytes of data: it is cut short"));
  }
  EXPECT_EQ(refusal(one("[4]", kMost - 3, kMost), 1000),
            concat("a: its data begins at ", kMost - 3, " and leaves a hole after 0"));
  EXPECT_EQ(refusal(one("[4]", kMost, 3), 1000), concat("a: data_offsets [", kMost, ", 3] end before they begin"));
}

TEST(ExtremeHeaders, CannotWrapAroundAt64Bits) {
  EXPECT_EQ(refusal(exbibytes(16), 10'000), concat("15: data_offsets [", 15 * kExbibyte, ", 0] end before they begin"));
  const std::string overflows = " overflows 64 bits or does not fill whole bytes";
  EXPECT_EQ(refusal(one("[4294967296,4294967297]", 0, 4294967296), 1000),
            "a: the size of shape [4294967296, 4294967297] of U8" + overflows);
  EXPECT_EQ(refusal(one(concat('[', 2 * kExbibyte, ']'), 0, 2 * kExbibyte), 1000),
            "a: the size of shape [2305843009213693952] of U8" + overflows);
  EXPECT_EQ(refusal(one("[4294967296,4294967296,0]", 0, 0), 1000),
            "a: the size of shape [4294967296, 4294967296, 0] of U8" + overflows);
}

TEST(ExtremeHeaders, AreAsLongAsTheFormatAllowsAndNoLonger) {
  EXPECT_EQ(length_of(kMaxHeaderBytes, kHeaderLengthBytes + kMaxHeaderBytes), kMaxHeaderBytes);
  EXPECT_EQ(testing::error_of([] { length_of(kMaxHeaderBytes + 1, kMost); }).cause(),
            "not a safetensors file: it claims a header of 100000001 bytes, the most is 100000000");
  std::string json = one("[2]", 0, 2);
  json.resize(kMaxHeaderBytes, ' ');
  EXPECT_EQ(parse_header(json, kHeaderLengthBytes + kMaxHeaderBytes + 2).tensors.size(), 1U);
}

TEST(ExtremeHeaders, ClaimWhatASmallFileHasNot) {
  EXPECT_EQ(testing::error_of([] { length_of(100'000'000'000, 1000); }).cause(),
            "not a safetensors file: it claims a header of 100000000000 bytes, the most is 100000000");
  EXPECT_EQ(refusal(one("[100000000000]", 0, 100'000'000'000), 1000).substr(0, 33), "the tensors end at 100000000000 b");
}

TEST(ExtremeHeaders, HaveAMillionTensors) {
  constexpr uint64_t kTensors = 1'000'000;
  std::string json = "{";
  for (uint64_t i = 0; i < kTensors; ++i) {
    json += entry(std::to_string(i), "[1]", i, i + 1) + (i + 1 < kTensors ? "," : "");
  }
  const SafetensorsHeader header = parse_header(json + "}", kHeaderLengthBytes + json.size() + 1 + kTensors);
  ASSERT_EQ(header.tensors.size(), kTensors);
  EXPECT_EQ(header.tensors.back().name, "999999");
  EXPECT_EQ(header.tensors.back().begin, kTensors - 1);
  EXPECT_EQ(refusal(json + "," + entry("7", "[1]", kTensors, kTensors + 1) + "}", kMost / 2),
            "7: the name stands twice in the header");
}

TEST(ExtremeHeaders, NestAsDeepAsTheyAreLong) {
  const std::string deep = std::string(10'000, '[') + std::string(10'000, ']');
  const std::string objects = [] {
    std::string text;
    for (int i = 0; i < 10'000; ++i) {
      text += R"({"a":)";
    }
    return text + "1" + std::string(10'000, '}');
  }();
  EXPECT_EQ(refusal("{\"a\":" + deep + "}", 30'000), "a: its entry must be an object, not an array");
  EXPECT_EQ(refusal("{\"__metadata__\":{\"a\":" + objects + "}}", 100'000),
            "the value of \"a\" in __metadata__ must be a string, not an object");
  EXPECT_EQ(refusal("{\"a\":" + objects + "}", 100'000), "a: its entry has no dtype");
  EXPECT_EQ(refusal("{\"a\":{\"b\":" + deep.substr(0, 19'999) + "}}", 30'000),
            "a: the header is not valid JSON: there is } where there should be , or ]");

  std::string cipher_header =
      R"(Byte3ncryptM0del{"mode":"CTR-128","iv":"AAECAwQFBgcICQoLDA0ODw==","meta_data_key":"d3JhcHBlZA==","x":)" + deep + "}";
  cipher_header.resize(kCipherHeaderBytes, '\0');
  EXPECT_EQ(parse_cipher_header(std::as_bytes(std::span(cipher_header))).wrapped_key, "d3JhcHBlZA==");
}

TEST(ExtremeHeaders, HaveNamesOfAMegabyte) {
  const std::string name(1'000'000, 'n');
  const std::string json = concat('{', entry(name, "[1]", 0, 1), '}');
  EXPECT_EQ(parse_header(json, kHeaderLengthBytes + json.size() + 1).tensors.at(0).name, name);
  const Error error = testing::error_of([&] { parse_header(json, kHeaderLengthBytes + json.size() + 2); });
  EXPECT_LT(error.message().size(), 1000U);
  const std::string dtype = R"({"a":{"dtype":")" + name + R"(","shape":[],"data_offsets":[0,1]}})";
  EXPECT_EQ(refusal(dtype, 2'000'000), "a: unknown dtype \"" + name.substr(0, 64) + "...\"");
  EXPECT_EQ(refusal(R"({"__metadata__":{")" + name + R"(":1}})", 2'000'000),
            "the value of \"" + name.substr(0, 64) + "...\" in __metadata__ must be a string, not a number");
  EXPECT_EQ(refusal(one("[" + std::string(1'000'000, '9') + "]", 0, 1), 2'000'000),
            "a: shape must be an array of non-negative integers, not of the number " + std::string(64, '9') +
                "..., which is not a plain 64-bit integer");
  std::string ones = "[1";
  for (int i = 1; i < 100'000; ++i) {
    ones += ",1";
  }
  EXPECT_EQ(refusal(one(ones + "]", 0, 2), 1'000'000),
            "a: shape [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ...] of U8 is 1 bytes, but data_offsets span 2");
}

TEST(ExtremeHeaders, AreTalkedOfWithoutTheirControlCharacters) {
  const std::string escaped = R"(a\u0000\n\u001b[2J\u007f\u0085)";
  const std::string json = concat('{', entry(escaped, "[2]", 0, 1), '}');
  const Error error = testing::error_of([&] { parse_header(json, 1000); });
  EXPECT_EQ(error.tensor(), "a\0\n\x1b[2J\x7f\xC2\x85"s);
  EXPECT_EQ(error.message(),
            R"(tensor "a\x00\x0a\x1b[2J\x7f\x85": shape [2] of U8 is 2 bytes, but data_offsets span 1 (at byte )" +
                std::to_string(kHeaderLengthBytes + json.size()) + ")");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"U\n8","shape":[],"data_offsets":[0,1]}})", 1000), R"(a: unknown dtype "U\x0a8")");
  EXPECT_EQ(refusal(R"({"__metadata__":{"\u0007":"1","\u0007":"2"}})", 1000), R"(the key "\x07" stands twice in __metadata__)");
}

}  // namespace
}  // namespace veturbo::format
