#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/secret.h"

namespace veturbo::keys {

// The strings of a JSON object that a server has answered with. No tree of it is built, since nothing would wipe that.
class JsonStrings {
 public:
  // Throws Error(kNoKey) for what is not a JSON object. Strings in arrays or more than four objects deep are of no interest.
  static JsonStrings parse(std::string_view json);

  // The string at a path as "Cred/AccessKeyId". Throws Error(kNoKey) when there is none, or an empty one.
  Secret take(std::string_view path);
  // The same, nothing when there is none.
  Secret take_if_any(std::string_view path);

 private:
  std::map<std::string, Secret, std::less<>> strings_;
};

}  // namespace veturbo::keys
