#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace veturbo::storage::sfcs {

// What the default configuration file says of the group that a path belongs to. What it does not say is empty.
struct CachePolicy {
  std::string group;  // without slashes around it
  std::string path;   // the path, with the cache's prefix in the place of the mount's
  std::string authentication_service_name;
  std::string enable_dns;  // "true" or "false"
  std::string fs_name;
  std::string region;
  std::string ufs_path;
  std::string ns_id;
  std::string name_node;
};

struct DefaultConfiguration {
  std::optional<CachePolicy> policy;
  std::string limits;  // why there is no more in it: the end of an error that names what is missing
};

// Looks into SFCS_METAINFO_PATH (default /root/.volc/SFCSConfiguration.json), which need not exist, for the longest group that
// the path is in. Throws Error(kInvalidArgument) for a damaged file, Error(kIo) for one that cannot be read.
DefaultConfiguration read_default_configuration(std::string_view normal_path);

}  // namespace veturbo::storage::sfcs
