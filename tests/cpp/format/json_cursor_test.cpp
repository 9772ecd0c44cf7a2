// What JSON is and what it is not, by RFC 8259; each way to break it has a text of its own and the offset of the byte at fault.
#include "format/json_cursor.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "testing/errors.h"

namespace veturbo::format {
namespace {

using namespace std::string_literals;

constexpr uint64_t kFirstOffset = 100;

std::string decode(const std::string& json) {
  JsonCursor cursor(json, kFirstOffset);
  std::string buffer;
  const std::string text(cursor.string(buffer));
  cursor.expect_end();
  return text;
}

void skip(const std::string& json) {
  JsonCursor cursor(json, kFirstOffset);
  cursor.skip_value();
  cursor.expect_end();
}

void expect_fault(const std::function<void()>& body, const std::string& json, const std::string& text, uint64_t at) {
  const Error error = testing::error_of(body);
  EXPECT_EQ(error.kind(), ErrorKind::kFormat) << json;
  EXPECT_EQ(error.cause(), "the header is not valid JSON: " + text) << json;
  EXPECT_EQ(error.offset(), kFirstOffset + at) << json;
}

TEST(JsonString, IsDecoded) {
  EXPECT_EQ(decode(R"("")"), "");
  EXPECT_EQ(decode(R"( "plain"  )"), "plain");
  EXPECT_EQ(decode(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(decode(R"("\u0041\u00e9\u20AC\ud83d\uDE00\u0000")"), "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\0"s);
  EXPECT_EQ(decode("\"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\""),
            "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
}

TEST(JsonString, IsAPartOfTheJsonWhereNothingHadToBeDecoded) {
  const std::string json = R"("a name of more than eight bytes")";
  JsonCursor cursor(json, 0);
  std::string buffer;
  EXPECT_EQ(cursor.string(buffer).data(), json.data() + 1);
}

// Strings are looked at eight bytes at a time: what is not plain must be seen at every place, and the bytes after it kept.
TEST(JsonString, MayHaveAnEscapeOrItsEndAtAnyPlace) {
  for (size_t before = 0; before < 20; ++before) {
    for (size_t after = 0; after < 20; ++after) {
      const std::string a(before, 'a');
      const std::string b(after, 'b');
      EXPECT_EQ(decode("\"" + a + "\\n" + b + "\""), a + "\n" + b);
      EXPECT_EQ(decode("\"" + a + "\xc3\xa9" + b + "\""), a + "\xc3\xa9" + b);
      std::string buffer;
      EXPECT_EQ(JsonCursor("\"" + a + "\"" + b, 0).string(buffer).size(), before);
      const std::string bad = "\"" + a + "\x1f" + b + "\"";
      expect_fault([&] { decode(bad); }, bad, "a control character in a string is not escaped", 1 + before);
    }
  }
}

TEST(JsonString, MustBeUtf8) {
  for (const std::string& bytes : {
           "\x80"s, "\xbf"s,                                  // a continuation of nothing
           "\xc3"s, "\xe2\x82"s, "\xf0\x9f\x98"s, "\xc3("s,   // cut short
           "\xc0\x80"s, "\xc1\xbf"s, "\xe0\x9f\xbf"s,         // longer than need be
           "\xf0\x8f\xbf\xbf"s,                               // the same
           "\xed\xa0\x80"s, "\xed\xbf\xbf"s,                  // a surrogate
           "\xf4\x90\x80\x80"s, "\xf5\x80\x80\x80"s, "\xff"s  // beyond U+10FFFF
       }) {
    const std::string json = "\"ab" + bytes + "\"";
    expect_fault([&] { decode(json); }, json, "a string is not UTF-8", 3);
  }
}

TEST(JsonString, MustHaveItsEscapesWhole) {
  for (const std::string& json : {R"("\x41")"s, R"("\U0041")"s, R"("\'")"s, "\"\\\n\""s}) {
    expect_fault([&] { decode(json); }, json, "a string has an escape that JSON does not know", 1);
  }
  for (const std::string& json : {R"("\ud800")"s, R"("\udc00")"s, R"("\ud800\u0041")"s, R"("\ud800\ud800")"s, R"("\ud800x")"s,
                                  R"("\udc00\ud800")"s, R"("\ud800\n")"s}) {
    expect_fault([&] { decode(json); }, json, "a string has half a surrogate pair", 1);
  }
  expect_fault([&] { decode(R"("\u00g0")"); }, "", "there is g where there should be a hexadecimal digit", 5);
  expect_fault([&] { decode(R"("\u00")"); }, "", "there is \" where there should be a hexadecimal digit", 5);
  expect_fault([&] { decode(R"("\ud800\u12)"); }, "", "it ends where there should be a hexadecimal digit", 11);
}

TEST(JsonString, MustEnd) {
  for (const std::string& json : {"\""s, "\"abc"s, "\"abcdefghijkl"s, R"("abc\)"s, R"("abc\")"s, "\"\xc3\xa9"s}) {
    const bool ends_in_escape = json.ends_with('\\');
    expect_fault([&] { decode(json); }, json, "a string has no end", ends_in_escape ? json.size() - 1 : 0);
  }
}

TEST(JsonNatural, TakesWholeNumbersOf64Bits) {
  for (const auto& [text, value] : std::vector<std::pair<std::string, uint64_t>>{{"0", 0},
                                                                                 {"7", 7},
                                                                                 {" 10,", 10},
                                                                                 {"1234567890123456789", 1234567890123456789},
                                                                                 {"9999999999999999999", 9999999999999999999U},
                                                                                 {"18446744073709551615]", UINT64_MAX}}) {
    JsonCursor cursor(text, 0);
    uint64_t found = 0;
    EXPECT_TRUE(cursor.natural(found)) << text;
    EXPECT_EQ(found, value);
    EXPECT_TRUE(cursor.is_at_end() || cursor.is_at(',') || cursor.is_at(']'));
  }
}

TEST(JsonNatural, StaysBeforeEverythingElse) {
  for (const auto& [text, description] : std::vector<std::pair<std::string, std::string>>{
           {"-1", "a negative number"},
           {"-0", "a negative number"},
           {"1.5", "the number 1.5, which is not a plain 64-bit integer"},
           {"0.0", "the number 0.0, which is not a plain 64-bit integer"},
           {"-1.5", "the number -1.5, which is not a plain 64-bit integer"},
           {"1e3", "the number 1e3, which is not a plain 64-bit integer"},
           {"1E+3", "the number 1E+3, which is not a plain 64-bit integer"},
           {"18446744073709551616", "the number 18446744073709551616, which is not a plain 64-bit integer"},
           {"\"1\"", "a string"},
           {"null", "null"},
           {"true", "a boolean"},
           {"false", "a boolean"},
           {"[1]", "an array"},
           {"{}", "an object"}}) {
    JsonCursor cursor(text, 0);
    uint64_t found = 0;
    EXPECT_FALSE(cursor.natural(found)) << text;
    EXPECT_EQ(cursor.offset(), 0U);
    EXPECT_EQ(cursor.describe_value(), description);
  }
  EXPECT_EQ(JsonCursor("1", 0).describe_value(), "a number");
}

TEST(JsonValue, IsSkippedWhole) {
  for (const std::string& json :
       {"0"s, "-0.0e-0"s, "1e999"s, "12345678901234567890123"s, "\"\\u0000\""s, "true"s, "false"s, "null"s, "[]"s, "{}"s,
        "[[],{}]"s, R"( { "a" : [ 1 , { "b" : null } ] , "a" : "" } )"s, std::string(100'000, '[') + std::string(100'000, ']')}) {
    EXPECT_NO_THROW(skip(json)) << json;
  }
}

TEST(JsonValue, IsRefusedWhereItIsBroken) {
  struct Case {
    std::string json;
    std::string text;
    uint64_t at;
  };
  for (const auto& [json, text, at] : std::vector<Case>{
           {"", "it ends where there should be a value", 0},
           {"  ", "it ends where there should be a value", 2},
           {"\0"s, "there is 0x00 where there should be a value", 0},
           {"x", "there is x where there should be a value", 0},
           {"+1", "there is + where there should be a value", 0},
           {".5", "there is . where there should be a value", 0},
           {"nul", "there is n where there should be a value", 0},
           {"True", "there is T where there should be a value", 0},
           {"NaN", "there is N where there should be a value", 0},
           {"'a'", "there is ' where there should be a value", 0},
           {"/**/1", "there is / where there should be a value", 0},
           {"\xc2\xa0"
            "1",
            "there is 0xc2 where there should be a value", 0},
           {"-", "it ends where there should be a digit", 1},
           {"-a", "there is a where there should be a digit", 1},
           {"1.", "it ends where there should be a digit", 2},
           {"1.e5", "there is e where there should be a digit", 2},
           {"1e", "it ends where there should be a digit", 2},
           {"1e+", "it ends where there should be a digit", 3},
           {"01", "there is 1 where there should be nothing more", 1},
           {"-01", "there is 1 where there should be nothing more", 2},
           {"1 2", "there is 2 where there should be nothing more", 2},
           {"nullx", "there is x where there should be nothing more", 4},
           {"[", "it ends where there should be a value", 1},
           {"[1", "it ends where there should be , or ]", 2},
           {"[1 2]", "there is 2 where there should be , or ]", 3},
           {"[1}", "there is } where there should be , or ]", 2},
           {"[1,]", "there is ] where there should be a value", 3},
           {"[,1]", "there is , where there should be a value", 1},
           {"{", "it ends where there should be a string", 1},
           {"{1:2}", "there is 1 where there should be a string", 1},
           {"{\"a\"}", "there is } where there should be :", 4},
           {"{\"a\":}", "there is } where there should be a value", 5},
           {"{\"a\":1]", "there is ] where there should be , or }", 6},
           {"{\"a\":1,}", "there is } where there should be a string", 7},
           {"{\"a\":1,,\"b\":2}", "there is , where there should be a string", 7},
       }) {
    expect_fault([&] { skip(json); }, json, text, at);
  }
}

}  // namespace
}  // namespace veturbo::format
