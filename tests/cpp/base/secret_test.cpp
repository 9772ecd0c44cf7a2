#include "base/secret.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

namespace veturbo {
namespace {

// The flags of the mapping that an address is in (VmFlags of proc(5)); empty where nothing is mapped.
std::string mapping_flags(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    uintptr_t begin = 0;
    uintptr_t end = 0;
    char dash = 0;
    if (std::istringstream(line) >> std::hex >> begin >> dash >> end && dash == '-') {
      inside = begin <= reinterpret_cast<uintptr_t>(address) && reinterpret_cast<uintptr_t>(address) < end;
    } else if (inside && line.starts_with("VmFlags:")) {
      return line + " ";
    }
  }
  return "";
}

TEST(Secret, IsNotInCoreDumps) {
  for (const size_t size : {1, 16, 32, 4096, 5000}) {
    const Secret secret(size);
    EXPECT_NE(mapping_flags(secret.bytes().data()).find(" dd "), std::string::npos) << size;
    EXPECT_NE(mapping_flags(secret.bytes().data() + size - 1).find(" dd "), std::string::npos) << size;
  }
  const std::string text = "of the same size";
  EXPECT_EQ(mapping_flags(text.data()).find(" dd "), std::string::npos);
}

TEST(Secret, GivesItsMemoryBack) {
  const std::byte* at = nullptr;
  {
    const Secret secret(std::string_view("a key"));
    at = secret.bytes().data();
    EXPECT_NE(mapping_flags(at), "");
  }
  EXPECT_EQ(mapping_flags(at), "");
}

TEST(Secret, HasOnePlaceWhenItIsMoved) {
  Secret first(std::string_view("a key"));
  const std::byte* const at = first.bytes().data();
  Secret second(std::move(first));
  EXPECT_EQ(second.bytes().data(), at);
  Secret third;
  third = std::move(second);
  EXPECT_EQ(third.bytes().data(), at);
  EXPECT_EQ(third.text(), "a key");
}

TEST(Secret, IsWipedWhereItIsCutOff) {
  Secret secret(std::string_view("a key and more"));
  const char* const at = secret.text().data();
  secret.shrink(5);
  EXPECT_EQ(secret.text(), "a key");
  EXPECT_EQ(std::string(at + 5, 9), std::string(9, '\0'));
}

TEST(Secret, GrowsByTexts) {
  Secret secret;
  std::string expected;
  for (int i = 0; i < 3000; ++i) {
    secret.append("four");
    expected += "four";
  }
  EXPECT_EQ(secret.text(), expected);
}

}  // namespace
}  // namespace veturbo
