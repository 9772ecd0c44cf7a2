#include "base/readable.h"

#include <algorithm>

namespace veturbo {

namespace {

// Bytes of the UTF-8 character that `text` begins with; 0 when it begins with none.
size_t utf8_length(std::string_view text) {
  const auto byte = [text](size_t i) -> unsigned { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const auto follows = [byte](size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first < 0x80) {
    return 1;
  }
  if (first >= 0xC2 && first <= 0xDF) {
    return follows(1) ? 2 : 0;
  }
  // The second byte's limits leave out what has a shorter form, the surrogates, and what lies beyond U+10FFFF.
  if (first >= 0xE0 && first <= 0xEF) {
    const bool in_range = byte(1) >= (first == 0xE0 ? 0xA0U : 0x80U) && byte(1) <= (first == 0xED ? 0x9FU : 0xBFU);
    return in_range && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool in_range = byte(1) >= (first == 0xF0 ? 0x90U : 0x80U) && byte(1) <= (first == 0xF4 ? 0x8FU : 0xBFU);
    return in_range && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

// Those of ASCII, and U+0080 to U+009F.
bool is_control(std::string_view character) {
  const auto last = static_cast<unsigned char>(character.back());
  return character.size() == 1 ? last < 0x20 || last == 0x7F : character.front() == '\xC2' && last < 0xA0;
}

void append_escaped(std::string& text, unsigned value) {
  constexpr char kDigits[] = "0123456789abcdef";
  text += {'\\', 'x', kDigits[value / 16], kDigits[value % 16]};
}

enum class Controls { kKept, kEscaped };

std::string visible(std::string_view text, size_t most, Controls controls) {
  std::string result;
  for (size_t done = 0; done < text.size();) {
    const size_t length = utf8_length(text.substr(done, 4));
    const std::string_view character = text.substr(done, std::max<size_t>(length, 1));
    if (most - done < character.size()) {
      return result + "...";
    }
    if (length == 0 || (controls == Controls::kEscaped && is_control(character))) {
      append_escaped(result, static_cast<unsigned char>(character.back()));
    } else {
      result += character;
    }
    done += character.size();
  }
  return result;
}

}  // namespace

std::string valid_utf8(std::string_view text) {
  return visible(text, std::string_view::npos, Controls::kKept);
}

std::string readable(std::string_view text, size_t most) {
  return visible(text, most, Controls::kEscaped);
}

}  // namespace veturbo
