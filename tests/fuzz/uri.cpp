#include <cstdlib>
#include <filesystem>

#include "require.h"
#include "storage/open.h"
#include "storage/sfcs/path.h"
#include "targets.h"

namespace veturbo::fuzz {

namespace {

// Absolute, and with nothing in it that would lead out of a folder.
void require_normal(const std::string& path) {
  require(path.starts_with('/') && path.find('\0') == std::string::npos, "a path is not absolute");
  for (const std::filesystem::path& part : std::filesystem::path(path)) {
    require(part != ".." && part != ".", "a path leads out of its folder");
  }
}

void resolve(const std::string& uri) {
  const auto path = unless_refused([&] { return storage::absolute_path(uri); });
  const auto is_local = unless_refused([&] { return storage::is_local(uri); });
  if (path) {
    require(is_local.has_value(), "a uri is one and is none");
    require_normal(*path);
    require(storage::absolute_path(*path) == *path, "an absolute path has another absolute path");
    require(!uri.starts_with("sfcs://") || !*is_local, "a file of SFCS is said to be local");
    require(!uri.starts_with("file://") || *is_local, "a local file is said to be remote");
  }
}

}  // namespace

void uri(std::string_view input) {
  for (const char* const paths_are_of_sfcs : {"0", "1"}) {
    ::setenv("VETURBOIO_USE_SFCS_SDK", paths_are_of_sfcs, 1);
    resolve(std::string(input));
  }
  ::unsetenv("VETURBOIO_USE_SFCS_SDK");
  const std::string normal = storage::sfcs::normal_path(input);
  if (input.find('\0') == std::string_view::npos) {
    require_normal(normal);
  }
  require(storage::sfcs::normal_path(normal) == normal, "a normal path has another normal path");
  const auto rest = storage::sfcs::rest_in("/folder", normal);
  require(rest.has_value() == (normal == "/folder" || normal.starts_with("/folder/")), "a path is in a folder and is not");
}

}  // namespace veturbo::fuzz
