#include "base/readable.h"

#include <gtest/gtest.h>

#include <string>

namespace veturbo {
namespace {

using namespace std::string_literals;

TEST(Readable, LeavesTextAsItIs) {
  for (const std::string& text : {""s, "model"s, "a \\ \"b\""s, "\xC2\xA0\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"s}) {
    EXPECT_EQ(readable(text), text);
    EXPECT_EQ(valid_utf8(text), text);
  }
}

TEST(Readable, ShowsControlCharactersAsTheirNumbers) {
  EXPECT_EQ(readable("\0a\n\x1b[2J\x7f\xC2\x85\xC2\x9F"s), "\\x00a\\x0a\\x1b[2J\\x7f\\x85\\x9f");
  EXPECT_EQ(valid_utf8("\0\n\xC2\x85"s), "\0\n\xC2\x85"s);
}

TEST(Readable, ShowsBytesThatAreNotUtf8AsTheirNumbers) {
  for (const auto convert :
       {+[](std::string_view text) { return readable(text); }, +[](std::string_view text) { return valid_utf8(text); }}) {
    EXPECT_EQ(convert("\xFF\x80-\xC0\xAF"), "\\xff\\x80-\\xc0\\xaf");
    EXPECT_EQ(convert("\xE2\x82"), "\\xe2\\x82");                    // cut off
    EXPECT_EQ(convert("\xED\xA0\x80"), "\\xed\\xa0\\x80");           // half a surrogate pair
    EXPECT_EQ(convert("\xF4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // beyond U+10FFFF
  }
}

TEST(Readable, CutsBetweenCharacters) {
  EXPECT_EQ(readable("abcd", 4), "abcd");
  EXPECT_EQ(readable("abcde", 4), "abcd...");
  EXPECT_EQ(readable("abc\xC3\xA9", 4), "abc...");
  EXPECT_EQ(readable("ab\xC3\xA9", 4), "ab\xC3\xA9");
  EXPECT_EQ(readable(std::string(1'000'000, '\n'), 2), "\\x0a\\x0a...");
}

}  // namespace
}  // namespace veturbo
