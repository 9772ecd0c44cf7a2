#include "storage/sfcs/group_variables.h"

#include <nlohmann/json.hpp>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "storage/sfcs/json_text.h"
#include "storage/sfcs/path.h"

namespace veturbo::storage::sfcs {

GroupVariables::GroupVariables(std::string_view normal_path) : group_(normal_path.substr(1, normal_path.find('/', 1) - 1)) {}

std::string GroupVariables::value(const char* name) {
  const std::optional<std::string> found = find(name);
  if (!found) {
    throw Error(ErrorKind::kInvalidArgument, concat(name, " has no value for the mount group \"", group_, '"'));
  }
  return *found;
}

std::optional<std::string> GroupVariables::find(const char* name) {
  const std::string_view text = environment_variable(name);
  if (!text.starts_with('{')) {
    return std::string(text);
  }
  const nlohmann::json groups = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!groups.is_object()) {
    throw Error(ErrorKind::kInvalidArgument, concat(name, " begins with '{', but is not a JSON object"));
  }
  used_group_ = group_;
  for (const auto& [group, value] : groups.items()) {
    if (normal_path(group) != normal_path(group_)) {
      continue;
    }
    std::optional<std::string> found = json_text(value);
    if (!found) {
      throw Error(ErrorKind::kInvalidArgument, concat(name, ": the value for the mount group \"", group_, "\" is not a string"));
    }
    return found->empty() ? std::nullopt : found;
  }
  return std::nullopt;
}

}  // namespace veturbo::storage::sfcs
