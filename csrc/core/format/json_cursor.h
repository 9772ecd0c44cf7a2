#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace veturbo::format {

// Reads a header's JSON (RFC 8259, to the letter) from its first byte to its last, once: whoever holds the cursor asks for what
// must come next. Nothing is built of it, so that a header costs little more than looking at its bytes.
//
// What is not JSON throws Error(kFormat) with the byte's offset in the file. All methods skip white space first.
class JsonCursor {
 public:
  // `first_offset` is where in the file the JSON begins.
  JsonCursor(std::string_view json, uint64_t first_offset)
      : begin_(json.data()), at_(begin_), end_(begin_ + json.size()), first_offset_(first_offset) {}

  // Where in the file the next byte stands.
  uint64_t offset() {
    skip_space();
    return offset_of(at_);
  }
  bool is_at_end() {
    skip_space();
    return at_ == end_;
  }
  bool is_at(char c) { return !is_at_end() && *at_ == c; }
  // Moves past `c` if that comes next.
  bool take(char c) {
    const bool is_there = is_at(c);
    at_ += is_there ? 1 : 0;
    return is_there;
  }

  // Moves past `c`, which must come next.
  void expect(char c) {
    if (!take(c)) {
      throw_unexpected(c);
    }
  }

  // Whether an array or object that was just opened has a member, and whether another follows the one just read. Moves past the
  // comma, or past `close`.
  bool has_member(char close) { return !take(close); }
  bool has_next_member(char close) {
    if (is_at_end() || (*at_ != ',' && *at_ != close)) {
      throw_no_end(close);
    }
    return *at_++ == ',';
  }

  // A string, decoded: a part of the JSON where nothing in it had to be, else `buffer`.
  std::string_view string(std::string& buffer) {
    expect('"');
    const char* const begin = at_;
    at_ = end_of_plain(at_, end_);
    if (at_ != end_ && *at_ == '"') {
      return {begin, static_cast<size_t>(at_++ - begin)};
    }
    return decode(begin, buffer);
  }

  // A member's name, and the colon after it.
  std::string_view key(std::string& buffer) {
    const std::string_view text = string(buffer);
    expect(':');
    return text;
  }

  // A number of 64 bits without sign, fraction and exponent. False, and the cursor stays, where there is anything else.
  // (Returned as an optional it would go by way of the stack, which costs more than its digits.)
  bool natural(uint64_t& value);

  // A value of any kind; nesting may be as deep as the header is long.
  void skip_value();

  // What the value is, for an error's text: "an array", "a negative number". Where the cursor is afterwards is not said.
  std::string describe_value();

  // Throws if anything but white space is left.
  void expect_end();

 private:
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) {
      ++at_;
    }
  }
  uint64_t offset_of(const char* at) const { return first_offset_ + static_cast<uint64_t>(at - begin_); }

  static const char* end_of_plain(const char* at, const char* end);
  std::string_view decode(const char* begin, std::string& buffer);

  void skip_scalar(std::string& buffer);
  void skip_literal(std::string_view literal);
  bool unusual_natural(uint64_t& value);
  void skip_number();
  void skip_digits();

  void append_escape(std::string& text);
  uint32_t escaped_unit();
  void append_multibyte(std::string& text);

  Error fault(std::string_view cause, const char* at) const;
  Error unexpected(std::string_view expected) const;
  [[noreturn]] void throw_unexpected(char expected) const;
  [[noreturn]] void throw_no_end(char close) const;

  const char* begin_;
  const char* at_;
  const char* end_;
  uint64_t first_offset_;
};

}  // namespace veturbo::format
