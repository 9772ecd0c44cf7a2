#include "storage/sfcs/settings.h"

#include <charconv>
#include <cstdint>
#include <system_error>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "storage/sfcs/credential_files.h"
#include "storage/sfcs/default_configuration.h"
#include "storage/sfcs/group_variables.h"
#include "storage/sfcs/json_text.h"
#include "storage/sfcs/network_segment.h"
#include "storage/sfcs/path.h"

// Every value has a variable, which wins, and may have a second source. Most of the second sources are the group's entry in the
// default configuration file; where there is such an entry, the machine is one of the platform's that wrote the file, and its
// variables MLP_* say the rest.
namespace veturbo::storage::sfcs {

namespace {

std::string either(std::string_view first, std::string_view second) {
  return std::string(first.empty() ? second : first);
}

std::string variable_or(const char* name, std::string_view otherwise) {
  return either(environment_variable(name), otherwise);
}

std::string resolve_by_dns(const std::string& in_file) {
  const std::string_view given = environment_variable("SFCS_ENABLE_DNS");
  if (given.empty()) {
    return either(in_file, "false");
  }
  const std::optional<std::string> normal = boolean_text(given);
  if (!normal) {
    throw Error(ErrorKind::kInvalidArgument, concat("SFCS_ENABLE_DNS=", given, ": give true or false"));
  }
  return *normal;
}

std::string block_size() {
  const std::string_view given = environment_variable("SFCS_BLOCK_SIZE");
  if (given.empty()) {
    return "";
  }
  int64_t bytes = 0;
  const auto [end, code] = std::from_chars(given.data(), given.data() + given.size(), bytes);
  if (code != std::errc() || end != given.data() + given.size() || bytes <= 0) {
    throw Error(ErrorKind::kInvalidArgument, concat("SFCS_BLOCK_SIZE=", given, ": give a positive whole number of bytes"));
  }
  return std::to_string(bytes);
}

std::optional<Access> find_access(const std::string& name_node) {
  const std::string_view access_key = environment_variable("SFCS_ACCESS_KEY");
  const std::string_view secret_key = environment_variable("SFCS_SECRET_KEY");
  // Whoever sets a key means it: to go on as somebody else would be a surprise.
  if (access_key.empty() != secret_key.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                access_key.empty() ? "SFCS_SECRET_KEY is set, but SFCS_ACCESS_KEY is not: set both or none of them"
                                   : "SFCS_ACCESS_KEY is set, but SFCS_SECRET_KEY is not: set both or none of them");
  }
  if (!access_key.empty()) {
    if (name_node.empty()) {
      return std::nullopt;
    }
    return Access{.credentials = {.access_key = std::string(access_key), .secret_key = Secret(secret_key), .session_token = {}},
                  .name_node = name_node};
  }
  if (name_node.empty()) {
    return std::nullopt;
  }
  std::optional<keys::Credentials> credentials = read_credential_files();
  return credentials ? std::optional(Access{.credentials = std::move(*credentials), .name_node = name_node}) : std::nullopt;
}

// What must be known of a file system.
struct FileSystem {
  std::string fs_name;
  std::string region;
  std::string authentication_service_name;
  std::string ns_id;
  std::string ufs_path;
  std::string nics;
  std::string network_segment;
};

FileSystem find_file_system(GroupVariables& variables, const DefaultConfiguration& configuration) {
  const CachePolicy policy = configuration.policy.value_or(CachePolicy{});
  const bool on_platform = configuration.policy.has_value();
  FileSystem found{
      .fs_name = either(variables.value("SFCS_FSNAME"), policy.fs_name),
      .region = variable_or("SFCS_REGION", policy.region),
      .authentication_service_name = variable_or("SFCS_AUTHENTICATION_SERVICE_NAME", policy.authentication_service_name),
      .ns_id = either(variables.value("SFCS_NS_ID"), policy.ns_id),
      .ufs_path = either(variables.value("SFCS_UFS_PATH"), policy.ufs_path),
      .nics = variable_or("SFCS_MULTI_NIC_WHITELIST", on_platform ? variable_or("MLP_RDMA_NIC_NAMES", "eth0") : ""),
      .network_segment = variable_or("SFCS_NETWORK_SEGMENT", on_platform ? environment_variable("MLP_RDMA_NETWORK_SEGMENT") : ""),
  };
  const std::pair<const char*, bool> required[] = {
      {"SFCS_FSNAME", !found.fs_name.empty()},
      {"SFCS_REGION", !found.region.empty()},
      {"SFCS_AUTHENTICATION_SERVICE_NAME", !found.authentication_service_name.empty()},
      {"SFCS_NS_ID", !found.ns_id.empty()},
      {"SFCS_UFS_PATH", !found.ufs_path.empty()},
      {"SFCS_MULTI_NIC_WHITELIST", !found.nics.empty()},
      {"SFCS_NETWORK_SEGMENT", on_platform || !found.network_segment.empty()},
  };
  std::string missing;
  for (const auto& [name, is_known] : required) {
    if (!is_known) {
      missing += concat(missing.empty() ? "" : ", ", name);
    }
  }
  if (!missing.empty()) {
    throw Error(ErrorKind::kInvalidArgument, concat("not set: ", missing, " (", configuration.limits, ')'));
  }
  if (found.network_segment.empty()) {
    found.network_segment = network_segment(found.nics);
  }
  return found;
}

}  // namespace

Location locate(std::string_view given) {
  const std::string path = normal_path(given);
  const DefaultConfiguration configuration = read_default_configuration(path);
  const CachePolicy policy = configuration.policy.value_or(CachePolicy{});
  GroupVariables variables(path);
  const FileSystem system = find_file_system(variables, configuration);

  Location location;
  location.path = configuration.policy ? policy.path : path;
  if (const std::string folder = variables.value_if_any("SFCS_CONCAT_DIR"); !folder.empty()) {
    location.concat_dir = normal_path(folder);
  }
  // Of two groups, the one in the file is named for more than the path's first component, unless it is the root.
  location.mount_group = either(policy.group, variables.used_group());

  Settings& settings = location.settings;
  settings.fs_name = system.fs_name;
  settings.name_node = variable_or("SFCS_NAMENODE_ENDPOINT_ADDRESS", policy.name_node);
  settings.access = find_access(settings.name_node);
  settings.properties = {
      {"dfs.default.uri", concat("cfs://", system.fs_name, ".sfcs-", system.region, ".ivolces.com")},
      {"dfs.authentication.service.name", system.authentication_service_name},
      {"cfs.filesystem.ns-id", system.ns_id},
      {"cfs.filesystem.ufs-path", system.ufs_path},
      {"cfs.client.multi-nic.whitelist", system.nics},
      {"cfs.client.network.segment", system.network_segment},
      {"cfs.metrics.server.host", concat("metricserver-", system.region, ".cfs.ivolces.com")},
      {"dfs.client.log.severity", variable_or("SFCS_LOG_SEVERITY", "INFO")},
      {"cfs.filesystem.resolve.addr.by.dns", resolve_by_dns(policy.enable_dns)},
      {"cfs.filesystem.task-id", variable_or("SFCS_TASK_ID", "sfcs")},
      {"cfs.filesystem.sync-interval", variable_or("SFCS_SYNC_INTERVAL", "-1")},
      {"cfs.filesystem.fs-mode", "ACC"},
      {"cfs.metrics.emitters", "metric_server;local_prometheus"},
      {"cfs.client.metadata-cache.enable", "false"},
      {"rpc.client.channel.pool.size", "32"},
      {"dfs.default.replica", "2"},
      {"cfs.client.multi-nic.enabled", "true"},
      {"fs.datanode.router.ignore-main-nic", "true"},
      {"cfs.datanode.router.shuffle", "true"},
  };
  if (std::string bytes = block_size(); !bytes.empty()) {
    settings.properties.emplace_back("dfs.default.blocksize", std::move(bytes));
  }
  return location;
}

std::vector<std::pair<std::string, Secret>> access_properties(const std::string& fs_name, const Access& access) {
  const std::pair<std::string, std::string_view> all[] = {
      {"cfs.access.key", access.credentials.access_key},
      {"cfs.secret.key", access.credentials.secret_key.text()},
      {"cfs.security.token", access.credentials.session_token.text()},
      {"cfs.namenode.endpoint.address." + fs_name, access.name_node},
  };
  std::vector<std::pair<std::string, Secret>> properties;
  for (const auto& [name, value] : all) {
    if (!value.empty()) {
      properties.emplace_back(name, Secret(value));
    }
  }
  return properties;
}

}  // namespace veturbo::storage::sfcs
