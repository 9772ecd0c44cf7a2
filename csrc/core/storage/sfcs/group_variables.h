#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace veturbo::storage::sfcs {

// Environment variables that hold either a value or, for more than one mount group, a JSON object from group to value. The group
// is then the first component of the path.
class GroupVariables {
 public:
  explicit GroupVariables(std::string_view normal_path);

  // Empty when the variable is not set. Throws Error(kInvalidArgument) when it has no value for the group.
  std::string value(const char* name);
  // The same, empty when there is none for the group.
  std::string value_if_any(const char* name) { return find(name).value_or(""); }

  // Empty if no variable was an object so far.
  const std::string& used_group() const { return used_group_; }

 private:
  std::optional<std::string> find(const char* name);

  std::string group_;
  std::string used_group_;
};

}  // namespace veturbo::storage::sfcs
