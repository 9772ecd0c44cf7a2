#include "storage/sfcs/path.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

namespace veturbo::storage::sfcs {
namespace {

TEST(SfcsPath, IsNormal) {
  const std::map<std::string, std::string> normal{{"/a", "/a"},       {"/a//b/../c", "/a/c"}, {"//a/", "/a"},  {"/", "/"},
                                                  {"/a/./b", "/a/b"}, {"/../a", "/a"},        {"a/b", "/a/b"}, {"", "/"}};
  for (const auto& [given, expected] : normal) {
    EXPECT_EQ(normal_path(given), expected) << given;
  }
}

TEST(SfcsPath, IsInAFolderByWholeComponents) {
  EXPECT_EQ(rest_in("/a/b", "/a/b/c"), "/c");
  EXPECT_EQ(rest_in("/a/b", "/a/b"), "");
  EXPECT_EQ(rest_in("/a/b", "/a/bc"), std::nullopt);
  EXPECT_EQ(rest_in("/a/b", "/a"), std::nullopt);
  EXPECT_EQ(rest_in("/", "/a"), "/a");
  EXPECT_EQ(rest_in("/", "/"), "");
}

}  // namespace
}  // namespace veturbo::storage::sfcs
