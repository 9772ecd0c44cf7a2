#include "format/container.h"

#include <gtest/gtest.h>

#include <string>

namespace veturbo::format {
namespace {

using namespace std::string_literals;

Container detect(const std::string& text, uint64_t file_size = 1 << 20) {
  return detect_container(std::as_bytes(std::span(text)), file_size);
}

TEST(Container, IsToldByTheFirstBytes) {
  EXPECT_EQ(detect("\x02\0\0\0\0\0\0\0{}"s), Container::kSafetensors);
  EXPECT_EQ(detect("\x06\0\0\0\0\0\0\0\n\r\t {}"s), Container::kSafetensors);
  EXPECT_EQ(detect("PK\x03\x04\0\0\x08\x08 and so on"s), Container::kTorchZip);
  EXPECT_EQ(detect("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s), Container::kTorchLegacy);
  EXPECT_EQ(detect(std::string(257, '\1') + "ustar" + std::string(250, '\1')), Container::kTorchLegacy);
}

TEST(Container, IsUnknownWhereNothingFits) {
  EXPECT_EQ(detect(""s, 0), Container::kUnknown);
  EXPECT_EQ(detect("abc"s, 3), Container::kUnknown);
  EXPECT_EQ(detect("garbage of some length"s), Container::kUnknown);
  EXPECT_EQ(detect("\x80\x07 no pickle of that protocol"s), Container::kUnknown);
}

TEST(Container, OfASafetensorsHeaderThatReadsAsAZipIsSafetensors) {
  // A length of 0x04034b50 is 67,324,752, which is a length that a header may have.
  EXPECT_EQ(detect("PK\x03\x04\0\0\0\0{\"a\""s, uint64_t{1} << 30), Container::kSafetensors);
}

}  // namespace
}  // namespace veturbo::format
