#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "format/safetensors.h"
#include "testing/errors.h"

namespace veturbo::format {
namespace {

using namespace std::string_literals;

TensorEntry entry(const std::string& name, DType dtype, std::vector<uint64_t> shape) {
  TensorEntry entry;
  entry.name = name;
  entry.dtype = dtype;
  entry.shape = std::move(shape);
  return entry;
}

std::string header_of(std::vector<TensorEntry> tensors, const std::optional<Metadata>& metadata = std::nullopt) {
  lay_out(tensors);
  return serialize_header(tensors, metadata);
}

std::string json_of(const std::string& header) {
  return header.substr(8);
}

TEST(Writer, WritesCompactJsonPaddedToEightBytes) {
  const std::string header = header_of({entry("a", DType::kF32, {2, 1}), entry("s", DType::kU8, {})}, Metadata{{"format", "pt"}});
  EXPECT_EQ(json_of(header), R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                             R"("s":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}      )");
  EXPECT_EQ(static_cast<unsigned char>(header[0]), header.size() - 8);
  EXPECT_EQ(header.substr(1, 7), std::string(7, '\0'));
}

TEST(Writer, WritesEmptyMetadataAndNoTensors) {
  EXPECT_EQ(json_of(header_of({})), "{}      ");
  EXPECT_EQ(json_of(header_of({}, Metadata{})), R"({"__metadata__":{}}     )");
}

TEST(Writer, SortsByDtypeFromTheLastThenByTheBytesOfTheName) {
  std::vector<TensorEntry> tensors;
  for (size_t i = 0; i < kNumDTypes; ++i) {
    for (const char* name : {"b", "B", "\xc3\xa9", "a"}) {
      tensors.push_back(entry(name + std::to_string(i), static_cast<DType>(i), {8}));
    }
  }
  std::shuffle(tensors.begin(), tensors.end(), std::mt19937(3));
  lay_out(tensors);
  EXPECT_EQ(tensors.front().dtype, DType::kU64);
  EXPECT_EQ(tensors.back().dtype, DType::kBool);
  uint64_t offset = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(tensors[i].begin, offset);
    offset = tensors[i].end;
    if (i > 0 && tensors[i].dtype == tensors[i - 1].dtype) {
      EXPECT_LT(tensors[i - 1].name, tensors[i].name);
    } else if (i > 0) {
      EXPECT_LT(tensors[i].dtype, tensors[i - 1].dtype);
    }
  }
}

TEST(Writer, EscapesWhatJsonMustAndNothingElse) {
  const std::string json = json_of(header_of({entry("\"\\/\b\f\n\r\t\x01\x1f\x7f\0\xc3\xa9\xe2\x80\xa8"s, DType::kU8, {0})}));
  EXPECT_TRUE(json.starts_with("{\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\\u0000\xc3\xa9\xe2\x80\xa8\":{")) << json;
}

TEST(Writer, RefusesWhatTheFormatCannotSay) {
  EXPECT_EQ(testing::error_of([] { header_of({entry("__metadata__", DType::kU8, {1})}); }).cause(),
            "the format keeps this name for metadata: rename the tensor");
  EXPECT_TRUE(
      testing::error_of([] { header_of({entry("\xff", DType::kU8, {1})}); }).cause().starts_with("a tensor's name is not"));
  EXPECT_TRUE(
      testing::error_of([] { header_of({}, Metadata{{"k", "\xff"}}); }).cause().starts_with("the metadata value of k is not"));
  std::vector<TensorEntry> huge;
  for (const char* name : {"1", "2", "3", "4", "5", "6", "7", "8"}) {
    huge.push_back(entry(name, DType::kU8, {uint64_t{1} << 60}));  // 2^63 bytes in all
  }
  EXPECT_EQ(testing::error_of([&] { header_of(huge); }).tensor(), "8");
  const Error half = testing::error_of([] { header_of({entry("a", DType::kF4, {3})}); });
  EXPECT_EQ(half.cause(), "shape [3] of F4 is too large or does not fill whole bytes");
  const Error long_header = testing::error_of([] { header_of({}, Metadata{{"k", std::string(kMaxHeaderBytes, 'x')}}); });
  EXPECT_EQ(long_header.kind(), ErrorKind::kInvalidArgument);
}

TEST(Writer, WritesWhatTheReaderReads) {
  std::mt19937 random(17);
  for (int round = 0; round < 200; ++round) {
    std::vector<TensorEntry> tensors;
    for (size_t i = random() % 20; i > 0; --i) {
      std::vector<uint64_t> shape(random() % 4);
      std::generate(shape.begin(), shape.end(), [&] { return random() % 5; });
      shape.push_back(8);  // fills bytes for every type
      std::string name = std::to_string(i) + "/";
      for (size_t length = random() % 10; length > 0; --length) {
        name += static_cast<char>(random() % 128);
      }
      tensors.push_back(entry(name, static_cast<DType>(random() % kNumDTypes), shape));
    }
    std::optional<Metadata> metadata;
    if (random() % 2 == 0) {
      metadata = Metadata{{"k" + std::to_string(round), std::string(random() % 9, '"')}};
    }
    lay_out(tensors);
    const std::string bytes = serialize_header(tensors, metadata);
    const uint64_t file_size = bytes.size() + (tensors.empty() ? 0 : tensors.back().end);
    EXPECT_EQ(parse_header_length(std::as_bytes(std::span(bytes)), file_size), bytes.size() - 8);
    const SafetensorsHeader header = parse_header(std::string_view(bytes).substr(8), file_size);
    EXPECT_EQ(header.data_offset, bytes.size());
    EXPECT_EQ(header.metadata, metadata);
    ASSERT_EQ(header.tensors.size(), tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_EQ(header.tensors[i].name, tensors[i].name);
      EXPECT_EQ(header.tensors[i].dtype, tensors[i].dtype);
      EXPECT_EQ(header.tensors[i].shape, tensors[i].shape);
      EXPECT_EQ(header.tensors[i].begin, tensors[i].begin);
      EXPECT_EQ(header.tensors[i].end, tensors[i].end);
    }
  }
}

}  // namespace
}  // namespace veturbo::format
