#include "keys/json_strings.h"

#include <gtest/gtest.h>

#include "testing/errors.h"

namespace veturbo::keys {
namespace {

using testing::error_of;

TEST(JsonStrings, AreFoundUnderTheNamesOfTheObjectsAroundThem) {
  JsonStrings strings = JsonStrings::parse(
      R"({"a": "1", "b": {"a": "2", "c": {"a": "3 \u00e9"}, "n": 4}, "list": ["5", {"a": "6"}, [["7"]]], "z": "8"})");
  EXPECT_EQ(strings.take("a").text(), "1");
  EXPECT_EQ(strings.take("b/a").text(), "2");
  EXPECT_EQ(strings.take("b/c/a").text(), "3 \xC3\xA9");
  EXPECT_EQ(strings.take("z").text(), "8");
  EXPECT_TRUE(strings.take_if_any("list").empty());
  EXPECT_TRUE(strings.take_if_any("list/a").empty());
}

TEST(JsonStrings, ThatAreNotThereAreNamed) {
  for (const char* const json : {"{}", R"({"Key": 1})", R"({"Key": null})", R"({"Key": ""})", R"({"Key": ["x"]})"}) {
    EXPECT_EQ(error_of([json] { JsonStrings::parse(json).take("Key"); }).message(), "the answer has no Key") << json;
  }
}

TEST(JsonStrings, AreOfNoInterestVeryDeep) {
  const size_t depth = 100'000;
  std::string json = R"({"x": )";
  for (size_t i = 0; i < depth; ++i) {
    json += R"({"a": )";
  }
  json += R"("deep")" + std::string(depth, '}') + R"(, "last": "found"})";
  EXPECT_EQ(JsonStrings::parse(json).take("last").text(), "found");
}

// Each has a page of its own: an answer of the greatest length might have enough of them for half a gigabyte.
TEST(JsonStrings, AreOfNoInterestInGreatNumbers) {
  std::string json = R"({"first": "found")";
  for (int i = 0; i < 100; ++i) {
    json += R"(, "more)" + std::to_string(i) + R"(": "x")";
  }
  json += R"(, "last": "not looked for"})";
  JsonStrings strings = JsonStrings::parse(json);
  EXPECT_EQ(strings.take("first").text(), "found");
  EXPECT_EQ(strings.take("more62").text(), "x");
  EXPECT_TRUE(strings.take_if_any("more63").empty());
  EXPECT_TRUE(strings.take_if_any("last").empty());
}

TEST(JsonStrings, RefuseWhatIsNoObjectWithoutRepeatingIt) {
  for (const char* const json : {"", "null", "\"secret\"", "[\"secret\"]", "{\"Key\": \"secret\"", "{\"Key\": secret}", "{} {}",
                                 "<html>secret</html>", "{\"Key\": \"\xFF\"}"}) {
    EXPECT_EQ(error_of([json] { JsonStrings::parse(json); }).message(), "the answer is not a JSON object") << json;
  }
}

}  // namespace
}  // namespace veturbo::keys
