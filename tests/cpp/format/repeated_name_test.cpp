#include "format/repeated_name.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace veturbo::format {
namespace {

std::vector<TensorEntry> named(const std::vector<std::string>& names) {
  std::vector<TensorEntry> tensors(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    tensors[i].name = names[i];
  }
  return tensors;
}

TEST(RepeatedName, IsNotFoundAmongNamesThatDiffer) {
  EXPECT_EQ(find_repeated_name({}), std::nullopt);
  // Beginnings, ends and zeros of each other, of every length about those of the words that are hashed.
  std::vector<std::string> names = {""};
  for (size_t length = 1; length < 40; ++length) {
    for (const char c : {'\0', 'a', '\xff'}) {
      names.push_back(std::string(length, c));
      names.push_back(std::string(length, 'b') + c);
    }
  }
  for (int i = 0; i < 5000; ++i) {
    names.push_back("model.layers." + std::to_string(i) + ".weight");
  }
  EXPECT_EQ(find_repeated_name(named(names)), std::nullopt);
}

TEST(RepeatedName, IsFoundWhereverItStands) {
  for (size_t length = 0; length < 40; ++length) {
    const std::string name(length, 'n');
    EXPECT_EQ(find_repeated_name(named({name, "other", "another", name})), 3U);
    EXPECT_EQ(find_repeated_name(named({"other", name, name, "other"})), 2U);
  }
}

// With all of them in one bucket this would take minutes.
TEST(RepeatedName, IsNotLongSoughtAmongNamesThatEndAlike) {
  std::vector<std::string> names;
  for (int i = 0; i < 300'000; ++i) {
    const std::string name = {static_cast<char>(i), static_cast<char>(i >> 8), static_cast<char>(i >> 16), 'a', 'b', 'c'};
    names.push_back(name);
    names.push_back("prefix." + name);
  }
  EXPECT_EQ(find_repeated_name(named(names)), std::nullopt);
}

}  // namespace
}  // namespace veturbo::format
