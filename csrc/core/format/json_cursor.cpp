#include "format/json_cursor.h"

#include <array>
#include <bit>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <limits>
#include <system_error>

#include "base/concat.h"
#include "base/readable.h"

namespace veturbo::format {

namespace {

constexpr size_t kMostShown = 64;  // of a number, which may be as long as the header

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Whether a byte stands for itself in a string: not the quote, the backslash, a control character or a byte of non-ASCII text.
constexpr std::array<bool, 256> kIsPlain = [] {
  std::array<bool, 256> is_plain = {};
  for (size_t c = 0x20; c < 0x80; ++c) {
    is_plain[c] = c != '"' && c != '\\';
  }
  return is_plain;
}();

void append_utf8(std::string& text, uint32_t code) {
  const auto push = [&](uint32_t byte) { text += static_cast<char>(byte); };
  const auto push_rest = [&](int shift) { push(0x80 | (code >> shift & 0x3f)); };
  if (code < 0x80) {
    push(code);
  } else if (code < 0x800) {
    push(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    push(0xe0 | code >> 12);
    push_rest(6);
  } else {
    push(0xf0 | code >> 18);
    push_rest(12);
    push_rest(6);
  }
  if (code >= 0x80) {
    push_rest(0);
  }
}

// What a character's first byte says of it: how many bytes it has, and between which its second is, so that it is not longer than
// need be, no surrogate and not beyond U+10FFFF. A length of 0: no character begins so.
struct Lead {
  size_t length;
  uint8_t second_min = 0x80;
  uint8_t second_max = 0xbf;
};

Lead lead(uint8_t byte) {
  if (byte < 0xc2 || byte > 0xf4) {
    return {0};
  }
  switch (byte) {
    case 0xe0:
      return {3, 0xa0, 0xbf};
    case 0xed:
      return {3, 0x80, 0x9f};
    case 0xf0:
      return {4, 0x90, 0xbf};
    case 0xf4:
      return {4, 0x80, 0x8f};
    default:
      return {byte < 0xe0 ? size_t{2} : byte < 0xf0 ? size_t{3} : size_t{4}};
  }
}

bool is_between(uint32_t value, uint32_t first, uint32_t last) {
  return value >= first && value <= last;
}

}  // namespace

// Of a run of bytes that stand for themselves: eight at a time, since names are most of a header.
const char* JsonCursor::end_of_plain(const char* at, const char* end) {
  static_assert(std::endian::native == std::endian::little, "a file's tensors are little-endian, and are used as they are");
  constexpr uint64_t kOnes = 0x0101010101010101;
  constexpr uint64_t kTops = 0x8080808080808080;
  // In the top bit of each byte: whether it is less than `limit`. Wrong where it is 0x80 or more, and after the first that is
  // less.
  const auto below = [](uint64_t word, uint64_t limit) { return word - kOnes * limit; };
  for (; static_cast<size_t>(end - at) >= sizeof(uint64_t); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    const uint64_t special = (word | below(word, 0x20) | below(word ^ kOnes * '"', 1) | below(word ^ kOnes * '\\', 1)) & kTops;
    if (special != 0) {
      return at + std::countr_zero(special) / 8;
    }
  }
  while (at != end && kIsPlain[static_cast<uint8_t>(*at)]) {
    ++at;
  }
  return at;
}

std::string_view JsonCursor::decode(const char* begin, std::string& buffer) {
  buffer.assign(begin, at_);
  for (;;) {
    if (at_ == end_) {
      throw fault("a string has no end", begin - 1);
    }
    const auto byte = static_cast<uint8_t>(*at_);
    if (byte == '"') {
      ++at_;
      return buffer;
    }
    if (byte == '\\') {
      append_escape(buffer);
    } else if (byte >= 0x80) {
      append_multibyte(buffer);
    } else if (byte < 0x20) {
      throw fault("a control character in a string is not escaped", at_);
    } else {
      const char* const run = at_;
      at_ = end_of_plain(at_, end_);
      buffer.append(run, at_);
    }
  }
}

void JsonCursor::append_escape(std::string& text) {
  const char* const escape = at_++;
  if (at_ == end_) {
    throw fault("a string has no end", escape);
  }
  const char letter = *at_++;
  switch (letter) {
    case '"':
    case '\\':
    case '/':
      text += letter;
      return;
    case 'b':
      text += '\b';
      return;
    case 'f':
      text += '\f';
      return;
    case 'n':
      text += '\n';
      return;
    case 'r':
      text += '\r';
      return;
    case 't':
      text += '\t';
      return;
    case 'u':
      break;
    default:
      throw fault("a string has an escape that JSON does not know", escape);
  }
  uint32_t code = escaped_unit();
  if (is_between(code, 0xd800, 0xdfff)) {
    // Characters beyond 16 bits are escaped as two halves.
    uint32_t low = 0;
    if (code < 0xdc00 && end_ - at_ >= 2 && at_[0] == '\\' && at_[1] == 'u') {
      at_ += 2;
      low = escaped_unit();
    }
    if (!is_between(low, 0xdc00, 0xdfff)) {
      throw fault("a string has half a surrogate pair", escape);
    }
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  append_utf8(text, code);
}

uint32_t JsonCursor::escaped_unit() {
  uint32_t unit = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const uint32_t c = at_ == end_ ? 0 : static_cast<uint8_t>(*at_);
    const uint32_t lower = c | 0x20;
    if (is_between(c, '0', '9')) {
      unit = unit << 4 | (c - '0');
    } else if (is_between(lower, 'a', 'f')) {
      unit = unit << 4 | (lower - 'a' + 10);
    } else {
      throw unexpected("a hexadecimal digit");
    }
  }
  return unit;
}

void JsonCursor::append_multibyte(std::string& text) {
  const auto [length, second_min, second_max] = lead(static_cast<uint8_t>(*at_));
  bool is_valid = length > 0 && static_cast<size_t>(end_ - at_) >= length;
  for (size_t i = 1; is_valid && i < length; ++i) {
    const auto byte = static_cast<uint8_t>(at_[i]);
    is_valid = i == 1 ? is_between(byte, second_min, second_max) : is_between(byte, 0x80, 0xbf);
  }
  if (!is_valid) {
    throw fault("a string is not UTF-8", at_);
  }
  text.append(at_, length);
  at_ += length;
}

bool JsonCursor::natural(uint64_t& value) {
  skip_space();
  const char* at = at_;
  uint64_t sum = 0;
  for (; at != end_ && is_digit(*at); ++at) {
    sum = sum * 10 + static_cast<uint64_t>(*at - '0');
  }
  constexpr std::ptrdiff_t kSafeDigits = std::numeric_limits<uint64_t>::digits10;
  if (at == at_ || at - at_ > kSafeDigits || *at_ == '0' || (at != end_ && (*at == '.' || *at == 'e' || *at == 'E'))) {
    return unusual_natural(value);
  }
  at_ = at;
  value = sum;
  return true;
}

bool JsonCursor::unusual_natural(uint64_t& value) {
  if (at_ == end_ || !is_digit(*at_)) {
    return false;
  }
  const char* const begin = at_;
  skip_number();
  const auto [end, error] = std::from_chars(begin, at_, value);
  if (error != std::errc() || end != at_) {
    at_ = begin;
    return false;
  }
  return true;
}

void JsonCursor::skip_number() {
  const auto next_is = [this](std::string_view bytes) { return at_ != end_ && bytes.find(*at_) != std::string_view::npos; };
  at_ += next_is("-") ? 1 : 0;
  if (next_is("0")) {
    ++at_;
  } else {
    skip_digits();
  }
  if (next_is(".")) {
    ++at_;
    skip_digits();
  }
  if (next_is("eE")) {
    ++at_;
    at_ += next_is("+-") ? 1 : 0;
    skip_digits();
  }
}

void JsonCursor::skip_digits() {
  const char* const begin = at_;
  while (at_ != end_ && is_digit(*at_)) {
    ++at_;
  }
  if (at_ == begin) {
    throw unexpected("a digit");
  }
}

void JsonCursor::skip_value() {
  std::string closes;  // of the arrays and objects that are open, the innermost last
  std::string buffer;
  do {
    if (!closes.empty() && closes.back() == '}') {
      key(buffer);
    }
    if (is_at('{') || is_at('[')) {
      const char close = *at_++ == '{' ? '}' : ']';
      if (has_member(close)) {
        closes += close;
        continue;
      }
    } else {
      skip_scalar(buffer);
    }
    while (!closes.empty() && !has_next_member(closes.back())) {
      closes.pop_back();
    }
  } while (!closes.empty());
}

void JsonCursor::skip_scalar(std::string& buffer) {
  if (is_at('"')) {
    string(buffer);
  } else if (is_at('n')) {
    skip_literal("null");
  } else if (is_at('t')) {
    skip_literal("true");
  } else if (is_at('f')) {
    skip_literal("false");
  } else if (is_at('-') || (at_ != end_ && is_digit(*at_))) {
    skip_number();
  } else {
    throw unexpected("a value");
  }
}

void JsonCursor::skip_literal(std::string_view literal) {
  if (!std::string_view(at_, static_cast<size_t>(end_ - at_)).starts_with(literal)) {
    throw unexpected("a value");
  }
  at_ += literal.size();
}

std::string JsonCursor::describe_value() {
  if (is_at('{')) {
    return "an object";
  }
  if (is_at('[')) {
    return "an array";
  }
  if (is_at('"')) {
    return "a string";
  }
  const char* const begin = at_;
  if (uint64_t value; natural(value)) {
    return "a number";
  }
  std::string buffer;
  skip_scalar(buffer);
  const std::string_view text(begin, static_cast<size_t>(at_ - begin));
  if (text == "null") {
    return "null";
  }
  if (text == "true" || text == "false") {
    return "a boolean";
  }
  if (text.front() == '-' && text.find_first_of(".eE") == std::string_view::npos) {
    return "a negative number";
  }
  return concat("the number ", readable(text, kMostShown), ", which is not a plain 64-bit integer");
}

void JsonCursor::expect_end() {
  if (!is_at_end()) {
    throw unexpected("nothing more");
  }
}

Error JsonCursor::fault(std::string_view cause, const char* at) const {
  return Error(ErrorKind::kFormat, concat("the header is not valid JSON: ", cause)).at_offset(offset_of(at));
}

Error JsonCursor::unexpected(std::string_view expected) const {
  if (at_ == end_) {
    return fault(concat("it ends where there should be ", expected), at_);
  }
  const auto byte = static_cast<uint8_t>(*at_);
  std::array<char, 8> text;
  std::snprintf(text.data(), text.size(), is_between(byte, 0x21, 0x7e) ? "%c" : "0x%02x", byte);
  return fault(concat("there is ", text.data(), " where there should be ", expected), at_);
}

void JsonCursor::throw_unexpected(char expected) const {
  throw unexpected(expected == '"' ? "a string" : std::string_view(&expected, 1));
}

void JsonCursor::throw_no_end(char close) const {
  throw unexpected(close == '}' ? ", or }" : ", or ]");
}

}  // namespace veturbo::format
