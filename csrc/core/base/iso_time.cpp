#include "base/iso_time.h"

#include <algorithm>
#include <cstddef>

namespace veturbo {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Takes parts from the front of a text, and remembers whether all of them were there.
class Parts {
 public:
  explicit Parts(std::string_view text) : text_(text) {}

  int number(size_t digits) {
    const std::string_view part = text_.substr(0, digits);
    if (part.size() != digits || !std::all_of(part.begin(), part.end(), is_digit)) {
      good_ = false;
      return 0;
    }
    text_.remove_prefix(digits);
    int value = 0;
    for (const char c : part) {
      value = value * 10 + (c - '0');
    }
    return value;
  }
  // The next character, if it is one of these, else nothing.
  char any_of(std::string_view characters) {
    if (text_.empty() || characters.find(text_.front()) == std::string_view::npos) {
      return '\0';
    }
    const char found = text_.front();
    text_.remove_prefix(1);
    return found;
  }
  char one_of(std::string_view characters) {
    const char found = any_of(characters);
    good_ = good_ && found != '\0';
    return found;
  }
  void skip_digits() {
    number(1);
    text_.remove_prefix(std::min(text_.find_first_not_of("0123456789"), text_.size()));
  }
  bool all_good() const { return good_ && text_.empty(); }

 private:
  std::string_view text_;
  bool good_ = true;
};

}  // namespace

std::optional<std::chrono::sys_seconds> parse_iso_time(std::string_view text) {
  using namespace std::chrono;
  Parts parts(text);
  const year y(parts.number(4));
  parts.one_of("-");
  const month m(static_cast<unsigned>(parts.number(2)));
  parts.one_of("-");
  const day d(static_cast<unsigned>(parts.number(2)));
  parts.one_of("T");
  const int hour = parts.number(2);
  parts.one_of(":");
  const int minute = parts.number(2);
  parts.one_of(":");
  const int second = parts.number(2);
  if (parts.any_of(".,") != '\0') {
    parts.skip_digits();
  }
  int offset_hour = 0;
  int offset_minute = 0;
  const char sign = parts.one_of("Z+-");
  if (sign == '+' || sign == '-') {
    offset_hour = parts.number(2);
    parts.one_of(":");
    offset_minute = parts.number(2);
  }
  const year_month_day date = y / m / d;
  // A minute has a second 60 when it ends with a leap second.
  if (!parts.all_good() || !date.ok() || hour > 23 || minute > 59 || second > 60 || offset_hour > 23 || offset_minute > 59) {
    return std::nullopt;
  }
  const seconds offset = hours(offset_hour) + minutes(offset_minute);
  return sys_days(date) + hours(hour) + minutes(minute) + seconds(second) - (sign == '-' ? -offset : offset);
}

}  // namespace veturbo
