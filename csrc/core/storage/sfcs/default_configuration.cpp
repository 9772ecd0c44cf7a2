#include "storage/sfcs/default_configuration.h"

#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "storage/sfcs/json_text.h"
#include "storage/sfcs/path.h"
#include "storage/sfcs/small_file.h"

namespace veturbo::storage::sfcs {

namespace {

using nlohmann::json;

constexpr const char* kGroups = "cache_policies";

// The fields of one group, with the words to complain about them.
class Fields {
 public:
  Fields(const json& values, std::string where) : values_(values), where_(std::move(where)) {
    if (!values.is_object()) {
      throw Error(ErrorKind::kInvalidArgument, concat(where_, " is not an object"));
    }
  }

  // Nothing when the field is not there.
  std::optional<std::string> text_if_any(const char* name) const {
    const auto found = values_.find(name);
    if (found == values_.end() || found->is_null()) {
      return std::nullopt;
    }
    std::optional<std::string> text = json_text(*found);
    if (!text) {
      throw Error(ErrorKind::kInvalidArgument, concat(where_, "[\"", name, "\"] is not a string"));
    }
    return text;
  }
  std::string text(const char* name) const { return text_if_any(name).value_or(""); }

  std::string boolean(const char* name) const {
    const auto found = values_.find(name);
    if (found != values_.end() && found->is_boolean()) {
      return found->get<bool>() ? "true" : "false";
    }
    const std::string given = text(name);
    const std::optional<std::string> normal = given.empty() ? "" : boolean_text(given);
    if (!normal) {
      throw Error(ErrorKind::kInvalidArgument, concat(where_, "[\"", name, "\"] is neither true nor false"));
    }
    return *normal;
  }

 private:
  const json& values_;
  std::string where_;
};

// A mount without a path of its own is mounted where the group is.
std::string cached_path(std::string_view path, const std::string& group, const Fields& fields) {
  const std::optional<std::string> prefix = fields.text_if_any("cache_prefix");
  const std::string mount = fields.text("mount_path");
  const std::optional<std::string> rest = rest_in(normal_path(mount.empty() ? group : mount), path);
  return prefix && rest ? normal_path(*prefix + *rest) : std::string(path);
}

CachePolicy policy_of(std::string_view path, const std::string& group, const Fields& fields) {
  return {.group = normal_path(group).substr(1),
          .path = cached_path(path, group, fields),
          .authentication_service_name = fields.text("authentication_service_name"),
          .enable_dns = fields.boolean("enable_dns"),
          .fs_name = fields.text("sfcs_fs_name"),
          .region = fields.text("region"),
          .ufs_path = fields.text("ufs_path"),
          .ns_id = fields.text("ns_id"),
          .name_node = fields.text("name_node_endpoint")};
}

}  // namespace

DefaultConfiguration read_default_configuration(std::string_view path) {
  const std::string_view given = environment_variable("SFCS_METAINFO_PATH");
  const std::string file(given.empty() ? "/root/.volc/SFCSConfiguration.json" : given);
  const std::string name = concat("the default configuration file ", file);
  std::optional<Secret> content;
  try {
    content = read_if_there(file);
  } catch (const Error& error) {
    // Only root can look into /root, and to all others that is the same as no file there.
    if (error.code() != EACCES || !given.empty()) {
      throw;
    }
    return {.policy = std::nullopt, .limits = concat(name, " cannot be read")};
  }
  if (!content) {
    return {.policy = std::nullopt, .limits = concat("there is no default configuration file ", file)};
  }
  const json root = json::parse(content->text(), nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    throw Error(ErrorKind::kInvalidArgument, concat(name, " is not a JSON object"));
  }
  const auto groups = root.find(kGroups);
  if (groups == root.end() || !groups->is_object()) {
    throw Error(ErrorKind::kInvalidArgument, concat(name, " has no object ", kGroups));
  }
  std::optional<std::string> best;
  for (const auto& [group, values] : groups->items()) {
    const std::string folder = normal_path(group);
    if (rest_in(folder, path) && (!best || folder.size() > normal_path(*best).size())) {
      best = group;
    }
  }
  if (!best) {
    return {.policy = std::nullopt, .limits = concat(name, " has no group for ", path)};
  }
  const Fields fields((*groups)[*best], concat(name, ": ", kGroups, "[\"", *best, "\"]"));
  return {.policy = policy_of(path, *best, fields), .limits = concat(name, " does not have them for its group ", *best)};
}

}  // namespace veturbo::storage::sfcs
