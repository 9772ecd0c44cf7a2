#include "keys/json_strings.h"

#include <openssl/crypto.h>

#include <cstddef>
#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "format/json_cursor.h"

namespace veturbo::keys {

namespace {

constexpr size_t kMaxDepth = 4;
// Each has a page of its own, and a server has no reason to send more.
constexpr size_t kMaxStrings = 64;

// A string that is decoded, because of an escape in it. Nothing is longer decoded, so it never moves to a larger place.
class DecodedText {
 public:
  explicit DecodedText(size_t most) { text_.reserve(most); }
  ~DecodedText() { OPENSSL_cleanse(text_.data(), text_.capacity()); }
  DecodedText(const DecodedText&) = delete;
  DecodedText& operator=(const DecodedText&) = delete;

  std::string& get() { return text_; }

 private:
  std::string text_;
};

}  // namespace

JsonStrings JsonStrings::parse(std::string_view json) {
  JsonStrings result;
  DecodedText decoded(json.size());
  format::JsonCursor cursor(json, 0);
  try {
    result.read_object(cursor, decoded.get(), "", 1);
    cursor.expect_end();
  } catch (const Error&) {  // which may repeat a byte of it
    throw Error(ErrorKind::kNoKey, "the answer is not a JSON object");
  }
  return result;
}

void JsonStrings::read_object(format::JsonCursor& cursor, std::string& decoded, std::string_view before, size_t depth) {
  cursor.expect('{');
  for (bool more = cursor.has_member('}'); more; more = cursor.has_next_member('}')) {
    const std::string_view name = cursor.key(decoded);
    const bool full = strings_.size() == kMaxStrings;
    if (std::string path = concat(before, name); !full && cursor.is_at('"')) {
      strings_.try_emplace(std::move(path), Secret(cursor.string(decoded)));
    } else if (!full && cursor.is_at('{') && depth < kMaxDepth) {
      read_object(cursor, decoded, path + "/", depth + 1);
    } else {
      cursor.skip_value();
    }
  }
}

Secret JsonStrings::take(std::string_view path) {
  Secret value = take_if_any(path);
  if (value.empty()) {
    throw Error(ErrorKind::kNoKey, concat("the answer has no ", path));
  }
  return value;
}

Secret JsonStrings::take_if_any(std::string_view path) {
  const auto found = strings_.find(path);
  return found == strings_.end() ? Secret() : std::move(found->second);
}

}  // namespace veturbo::keys
