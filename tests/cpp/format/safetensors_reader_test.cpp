// Every rule of the reader, with the files that keep it and those that break it. Each way to break one has a text of its own.
#include <gtest/gtest.h>

#include <string>

#include "format/safetensors.h"
#include "testing/errors.h"

namespace veturbo::format {
namespace {

using namespace std::string_literals;

std::string file_of(const std::string& json, size_t data_bytes) {
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) {
    length[i] = static_cast<char>(json.size() >> (8 * i));
  }
  return length + json + std::string(data_bytes, 'x');
}

SafetensorsHeader read(const std::string& file) {
  const auto bytes = std::as_bytes(std::span(file));
  const uint64_t length = parse_header_length(bytes, file.size());
  return parse_header(std::string_view(file).substr(8, length), file.size());
}

SafetensorsHeader read(const std::string& json, size_t data_bytes) {
  return read(file_of(json, data_bytes));
}

TEST(Reader, TakesAHeaderAsWritersMakeIt) {
  const SafetensorsHeader header =
      read(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},)"
           R"("a":{"dtype":"BF16","shape":[1,3],"data_offsets":[16,22]}}   )",
           22);
  ASSERT_EQ(header.tensors.size(), 2U);
  EXPECT_EQ(header.tensors[0].name, "b");
  EXPECT_EQ(header.tensors[0].dtype, DType::kI64);
  EXPECT_EQ(header.tensors[1].shape, (std::vector<uint64_t>{1, 3}));
  EXPECT_EQ(header.tensors[1].begin, 16U);
  EXPECT_EQ(header.tensors[1].num_bytes(), 6U);
  EXPECT_EQ(header.metadata, (Metadata{{"format", "pt"}}));
}

TEST(Reader, TellsEmptyMetadataFromNone) {
  EXPECT_FALSE(read("{}", 0).metadata.has_value());
  EXPECT_EQ(read(R"({"__metadata__":{}})", 0).metadata, Metadata{});
}

TEST(Reader, PutsTensorsInTheOrderOfTheirData) {
  const SafetensorsHeader header = read(R"({"z":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},)"
                                        R"("e":{"dtype":"U8","shape":[0],"data_offsets":[3,3]},)"
                                        R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})",
                                        5);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[1].name, "e");
  EXPECT_EQ(header.tensors[2].name, "z");
}

TEST(Reader, TakesScalarsEmptyTensorsAndAnyLengthOfTheHeader) {
  const SafetensorsHeader header =
      read(R"( { "s":{"shape":[],"dtype":"F32","data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]} } )"
           "\n\t\r ",
           4);
  EXPECT_NE(header.data_offset % 8, 0U);
  EXPECT_TRUE(header.tensors[0].shape.empty());
  EXPECT_EQ(header.tensors[1].num_bytes(), 0U);
}

TEST(Reader, TakesDtypesThatDoNotFillBytesWhereTheTensorDoes) {
  const SafetensorsHeader header = read(R"({"a":{"dtype":"F4","shape":[3,2],"data_offsets":[0,3]},)"
                                        R"("b":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[3,6]}})",
                                        6);
  EXPECT_EQ(header.tensors[1].dtype, DType::kF6E2M3);
}

TEST(Reader, KnowsEveryDtypeOfTheFormat) {
  for (size_t i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    const int bytes = dtype_bits(dtype);  // of 8 elements
    const std::string text = std::to_string(bytes);
    EXPECT_EQ(read(R"({"a":{"dtype":")" + std::string(dtype_name(dtype)) + R"(","shape":[8],"data_offsets":[0,)" + text + "]}}",
                   static_cast<size_t>(bytes))
                  .tensors[0]
                  .dtype,
              dtype);
  }
}

TEST(Reader, IgnoresUnknownFieldsHoweverDeep) {
  const std::string deep = std::string(10'000, '[') + R"({"dtype":[{"shape":1}]})" + std::string(10'000, ']');
  for (const std::string& extra :
       {"null"s, "true"s, "-1.5e3"s, "\"text\""s, "{}"s, "[]"s, R"([[],{"a":[1,{"b":null}]},2])"s, deep}) {
    const SafetensorsHeader header =
        read(R"({"a":{"x":)" + extra + R"(,"dtype":"U8","shape":[1],"y":)" + extra + R"(,"data_offsets":[0,1]}})", 1);
    EXPECT_EQ(header.tensors[0].shape.size(), 1U);
  }
}

TEST(Reader, DecodesEscapesInNames) {
  EXPECT_EQ(read(R"({"\u00e9\n\u0000":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1).tensors[0].name, "\xc3\xa9\n\0"s);
}

struct Broken {
  std::string name;
  std::string file;
  std::string text;                               // all of what(), but for the offset
  std::optional<uint64_t> offset = std::nullopt;  // checked where given
};

std::string entry(const std::string& fields, size_t data_bytes = 4) {
  return file_of("{\"a\":" + fields + "}", data_bytes);
}

const std::vector<Broken>& broken_files() {
  static const std::vector<Broken> kFiles = {
      {"NoLength", "1234567", "not a safetensors file: 7 bytes cannot hold the 8-byte length of a header", 7},
      {"Empty", "", "not a safetensors file: 0 bytes cannot hold the 8-byte length of a header", 0},
      {"LengthAboveTheLimit", "\x01\xe1\xf5\x05\0\0\0\0{}"s,
       "not a safetensors file: it claims a header of 100000001 bytes, the most is 100000000", 0},
      {"LengthAllOnes", std::string(8, '\xff') + "{}",
       "not a safetensors file: it claims a header of 18446744073709551615 bytes, the most is 100000000", 0},
      {"LengthBeyondTheFile", "\x03\0\0\0\0\0\0\0{}"s,
       "the header is 3 bytes long but the file has only 2 after its length: it is cut short", 10},
      {"NotAnObject", file_of("[]", 0), "not a safetensors file: its header does not begin with '{'", 8},
      {"ByteOrderMark", file_of("\xef\xbb\xbf{}", 0), "not a safetensors file: its header does not begin with '{'", 8},
      {"NulAfterTheJson", file_of("{}\0{}"s, 0), "the header is not valid JSON: there is 0x00 where there should be nothing more",
       10},
      {"NoJson", file_of("", 0), "the header is not valid JSON: it ends where there should be {", 8},
      {"WhiteSpaceOnly", file_of("  ", 0), "the header is not valid JSON: it ends where there should be {", 10},
      {"SomethingAfterTheJson", file_of("{}x", 0), "the header is not valid JSON: there is x where there should be nothing more",
       10},
      {"CutShort", file_of("{\"a\":", 0), "tensor \"a\": the header is not valid JSON: it ends where there should be a value",
       13},
      {"CutShortInAnEntry", file_of(R"({"a":{"dtype":"F32")", 0),
       "tensor \"a\": the header is not valid JSON: it ends where there should be , or }", 27},
      {"NotUtf8", file_of("{\"\xff\":1}", 0), "the header is not valid JSON: a string is not UTF-8", 10},
      {"ArrayEntry", entry(R"(["F32",[1],[0,4]])"), "tensor \"a\": its entry must be an object, not an array"},
      {"StringEntry", entry(R"("F32")"), "tensor \"a\": its entry must be an object, not a string"},
      {"NullEntry", entry("null"), "tensor \"a\": its entry must be an object, not null"},
      {"NoDtype", entry(R"({"shape":[1],"data_offsets":[0,4]})"), "tensor \"a\": its entry has no dtype"},
      {"NoShape", entry(R"({"dtype":"F32","data_offsets":[0,4]})"), "tensor \"a\": its entry has no shape"},
      {"NoOffsets", entry(R"({"dtype":"F32","shape":[1]})"), "tensor \"a\": its entry has no data_offsets"},
      {"UnknownDtype", entry(R"({"dtype":"F33","shape":[1],"data_offsets":[0,4]})"), "tensor \"a\": unknown dtype \"F33\""},
      {"LowerCaseDtype", entry(R"({"dtype":"f32","shape":[1],"data_offsets":[0,4]})"), "tensor \"a\": unknown dtype \"f32\""},
      {"NumberAsDtype", entry(R"({"dtype":32,"shape":[1],"data_offsets":[0,4]})"),
       "tensor \"a\": dtype must be a string, not a number"},
      {"ShapeNotAnArray", entry(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})"),
       "tensor \"a\": shape must be an array of non-negative integers, not a number"},
      {"NegativeDimension", entry(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"),
       "tensor \"a\": shape must be an array of non-negative integers, not of a negative number"},
      {"MinusZero", entry(R"({"dtype":"F32","shape":[-0],"data_offsets":[0,4]})"),
       "tensor \"a\": shape must be an array of non-negative integers, not of a negative number"},
      {"FractionalDimension", entry(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})"),
       "tensor \"a\": shape must be an array of non-negative integers, not of the number 1.0, which is not a plain 64-bit "
       "integer"},
      {"ExponentDimension", entry(R"({"dtype":"F32","shape":[1e0],"data_offsets":[0,4]})"),
       "tensor \"a\": shape must be an array of non-negative integers, not of the number 1e0, which is not a plain 64-bit "
       "integer"},
      {"DimensionAbove64Bits", entry(R"({"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]})"),
       "tensor \"a\": shape must be an array of non-negative integers, not of the number 18446744073709551616, which is not a "
       "plain "
       "64-bit integer"},
      {"NestedShape", entry(R"({"dtype":"F32","shape":[[1]],"data_offsets":[0,4]})"),
       "tensor \"a\": shape must be an array of non-negative integers, not of an array"},
      {"OneOffset", entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})"),
       "tensor \"a\": data_offsets has 1 numbers, it must have 2"},
      {"ThreeOffsets", entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})"),
       "tensor \"a\": data_offsets has 3 numbers, it must have 2"},
      {"StringOffset", entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,"4"]})"),
       "tensor \"a\": data_offsets must be an array of 2 non-negative integers, not of a string"},
      {"FieldTwice", entry(R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})"),
       "tensor \"a\": its dtype stands twice"},
      {"NameTwice",
       file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2),
       "tensor \"a\": the name stands twice in the header", 61},
      {"NameTwiceOnceEscaped",
       file_of(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           2),
       "tensor \"a\": the name stands twice in the header", 61},
      {"MetadataTwice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0),
       "tensor \"__metadata__\": the name stands twice in the header"},
      {"MetadataKeyTwice", file_of(R"({"__metadata__":{"k":"1","\u006b":"2"}})", 0),
       "the key \"k\" stands twice in __metadata__"},
      {"MetadataNotAnObject", file_of(R"({"__metadata__":"pt"})", 0), "__metadata__ must be an object of strings, not a string"},
      {"MetadataOfNumbers", file_of(R"({"__metadata__":{"k":1}})", 0),
       "the value of \"k\" in __metadata__ must be a string, not a number"},
      {"MetadataNested", file_of(R"({"__metadata__":{"k":{}}})", 0),
       "the value of \"k\" in __metadata__ must be a string, not an object"},
      {"OffsetsReversed", entry(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"),
       "tensor \"a\": data_offsets [4, 0] end before they begin"},
      {"HoleAtTheStart", entry(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8),
       "tensor \"a\": its data begins at 4 and leaves a hole after 0"},
      {"HoleBetween",
       file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})", 3),
       "tensor \"b\": its data begins at 2 and leaves a hole after 1"},
      {"Overlap",
       file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3),
       "tensor \"b\": its data begins at 1, inside the tensor before it, which ends at 2"},
      {"WrongSize", entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"),
       "tensor \"a\": shape [2] of F32 is 8 bytes, but data_offsets span 4"},
      {"SizeOverflows", entry(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})"),
       "tensor \"a\": the size of shape [4294967296, 4294967296] of F32 overflows 64 bits or does not fill whole bytes"},
      {"BitsOverflow", entry(R"({"dtype":"F64","shape":[9223372036854775807],"data_offsets":[0,4]})"),
       "tensor \"a\": the size of shape [9223372036854775807] of F64 overflows 64 bits or does not fill whole bytes"},
      {"HalfAByte", entry(R"({"dtype":"F4","shape":[7],"data_offsets":[0,4]})"),
       "tensor \"a\": the size of shape [7] of F4 overflows 64 bits or does not fill whole bytes"},
      {"DataCutShort", entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 3),
       "the tensors end at 4 but the file has only 3 bytes of data: it is cut short"},
      {"TrailingBytes", entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 6),
       "the file has 2 bytes after its last tensor"},
      {"DataWithoutTensors", file_of("{}", 1), "the file has 1 bytes after its last tensor", 10},
  };
  return kFiles;
}

class BrokenFile : public ::testing::TestWithParam<Broken> {};

TEST_P(BrokenFile, IsRefusedWithItsOwnText) {
  const Error error = testing::error_of([] { read(GetParam().file); });
  EXPECT_EQ(error.kind(), ErrorKind::kFormat);
  ASSERT_TRUE(error.offset().has_value());
  EXPECT_EQ(error.what(), GetParam().text + " (at byte " + std::to_string(*error.offset()) + ")");
  if (GetParam().offset) {
    EXPECT_EQ(error.offset(), GetParam().offset);
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, BrokenFile, ::testing::ValuesIn(broken_files()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace veturbo::format
