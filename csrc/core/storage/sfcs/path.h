#pragma once

#include <optional>
#include <string>
#include <string_view>

// Names of files in a name space that knows no links, so that ".." can be taken by its word.
namespace veturbo::storage::sfcs {

// Absolute, without "//", ".", ".." and a '/' at its end; only the root is "/".
std::string normal_path(std::string_view path);

// What of `path` comes after `folder`, both normal: "/c" for "/a/b/c" in "/a/b", empty for the folder itself. Nothing for what is
// not in it.
std::optional<std::string> rest_in(std::string_view folder, std::string_view path);

}  // namespace veturbo::storage::sfcs
