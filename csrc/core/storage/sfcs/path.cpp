#include "storage/sfcs/path.h"

#include <filesystem>

#include "base/concat.h"

namespace veturbo::storage::sfcs {

std::string normal_path(std::string_view path) {
  std::string normal = std::filesystem::path(concat('/', path)).lexically_normal().string();
  if (normal.size() > 1 && normal.ends_with('/')) {
    normal.pop_back();
  }
  return normal;
}

std::optional<std::string> rest_in(std::string_view folder, std::string_view path) {
  if (folder == "/") {
    return std::string(path == "/" ? "" : path);
  }
  if (!path.starts_with(folder) || (path.size() > folder.size() && path[folder.size()] != '/')) {
    return std::nullopt;
  }
  return std::string(path.substr(folder.size()));
}

}  // namespace veturbo::storage::sfcs
