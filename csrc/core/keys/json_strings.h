#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/secret.h"
#include "format/json_cursor.h"

namespace veturbo::keys {

// The strings of a JSON object that a server has answered with. No tree of it is built, since nothing would wipe that: they are
// read where the answer lies.
class JsonStrings {
 public:
  // Throws Error(kNoKey) for what is not a JSON object. Strings in arrays or more than four objects deep are of no interest,
  // nor are those after the first 64.
  static JsonStrings parse(std::string_view json);

  // The string at a path as "Cred/AccessKeyId". Throws Error(kNoKey) when there is none, or an empty one.
  Secret take(std::string_view path);
  // The same, nothing when there is none.
  Secret take_if_any(std::string_view path);

 private:
  // The strings of an object that comes next, and of those in it; what begins their paths is `before`.
  void read_object(format::JsonCursor& cursor, std::string& decoded, std::string_view before, size_t depth);

  std::map<std::string, Secret, std::less<>> strings_;
};

}  // namespace veturbo::keys
