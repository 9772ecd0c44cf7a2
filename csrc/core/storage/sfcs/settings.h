#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "keys/credentials.h"

// By what configuration a path is reached in SFCS: from the environment, a default configuration file and files of credentials.
namespace veturbo::storage::sfcs {

using Properties = std::vector<std::pair<std::string, std::string>>;

// Who is asked, and as whom.
struct Access {
  keys::Credentials credentials;
  std::string name_node;
};

struct Settings {
  std::string fs_name;
  Properties properties;         // of the client's configuration, but those of the access; none empty
  std::optional<Access> access;  // none: the trusted service lends it
  std::string name_node = {};    // if it is known; it then goes before the trusted service's
};

// One path of SFCS.
struct Location {
  std::string mount_group;  // without slashes around it; empty if there are no groups
  std::string path;         // absolute, as the client library has it
  std::string concat_dir;   // where the parts of a parallel save go; empty: beside the file
  Settings settings;
};

// Finds out about `path`, which is absolute. Throws Error(kInvalidArgument) that names all variables that are missing at once, or
// the one that is not what it should be; Error(kIo) for a file that cannot be read.
Location locate(std::string_view path);

// The properties that only an access gives: the keys of its credentials and the address of its name node. Secret.
std::vector<std::pair<std::string, Secret>> access_properties(const std::string& fs_name, const Access& access);

}  // namespace veturbo::storage::sfcs
