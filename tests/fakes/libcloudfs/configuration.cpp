#include "configuration.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>

#include "failure.h"
#include "settings.h"

namespace fake {
namespace {

void check_file(const std::string& path) {
  struct stat status;
  if (!path.starts_with('/')) {
    fail(EINVAL, "the configuration's path is not absolute");
  }
  if (::lstat(path.c_str(), &status) != 0) {
    fail(errno);
  }
  if (!S_ISREG(status.st_mode)) {
    fail(EINVAL, "the configuration is not a regular file");
  }
  if ((status.st_mode & 07777) != 0600 || status.st_uid != ::geteuid()) {
    fail(EINVAL, "others may read the configuration, or its mode is not 0600");
  }
  char real[PATH_MAX];
  char working[PATH_MAX];
  if (::realpath(path.c_str(), real) == nullptr || ::getcwd(working, sizeof working) == nullptr) {
    fail(errno);
  }
  // All is below the root folder: who works there cannot do better.
  if (const std::string folder = working; folder != "/" && std::string(real).starts_with(folder + "/")) {
    fail(EINVAL, "the configuration is below the working directory");
  }
}

// What each property's value looks like; those of the access and the endpoint are seen to apart.
const std::map<std::string, std::string>& required() {
  static const auto* const patterns = new std::map<std::string, std::string>{
      {"dfs.authentication.service.name", ".+"},
      {"cfs.filesystem.ns-id", ".+"},
      {"cfs.filesystem.ufs-path", ".+"},
      {"cfs.client.multi-nic.whitelist", ".+"},
      {"cfs.client.network.segment", ".+"},
      {"dfs.client.log.severity", "[A-Z]+"},
      {"cfs.filesystem.resolve.addr.by.dns", "true|false"},
      {"cfs.filesystem.task-id", ".+"},
      {"cfs.filesystem.sync-interval", "-?[0-9]+"},
      {"cfs.access.key", ".+"},
      {"cfs.secret.key", ".+"},
      {"cfs.filesystem.fs-mode", "ACC"},
      {"cfs.metrics.emitters", "metric_server;local_prometheus"},
      {"cfs.client.metadata-cache.enable", "false"},
      {"rpc.client.channel.pool.size", "32"},
      {"dfs.default.replica", "2"},
      {"cfs.client.multi-nic.enabled", "true"},
      {"fs.datanode.router.ignore-main-nic", "true"},
      {"cfs.datanode.router.shuffle", "true"},
  };
  return *patterns;
}

// Values of ours never have line breaks, which `.` does not match.
std::string take(Properties& properties, const std::string& name, const std::string& pattern) {
  const auto found = properties.find(name);
  if (found == properties.end()) {
    fail(EINVAL, "the configuration has no " + name);
  }
  const std::string value = found->second;
  if (!std::regex_match(value, std::regex(pattern))) {
    fail(EINVAL, "the configuration's " + name + " is not " + pattern);  // without the value, which may be secret
  }
  properties.erase(found);
  return value;
}

std::string take_if_there(Properties& properties, const std::string& name, const std::string& pattern) {
  return properties.contains(name) ? take(properties, name, pattern) : "";
}

}  // namespace

Configuration read_configuration(const std::string& path) {
  check_file(path);
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  Properties properties = parse_properties(text.str());
  for (const auto& [name, value] : properties) {
    if (value.empty()) {
      fail(EINVAL, "the configuration's " + name + " is empty");
    }
  }

  const std::string uri = take(properties, "dfs.default.uri", R"(cfs://[^/.]+\.sfcs-[^/.]+\.ivolces\.com)");
  const size_t scheme_end = std::string("cfs://").size();
  const size_t name_end = uri.find(".sfcs-");
  const size_t region_start = name_end + std::string(".sfcs-").size();
  const std::string name = uri.substr(scheme_end, name_end - scheme_end);
  const std::string region = uri.substr(region_start, uri.find('.', region_start) - region_start);
  if (take(properties, "cfs.metrics.server.host", ".+") != "metricserver-" + region + ".cfs.ivolces.com") {
    fail(EINVAL, "the configuration's cfs.metrics.server.host is not that of region " + region);
  }

  Configuration configuration;
  configuration.credentials.token = take_if_there(properties, "cfs.security.token", ".+");
  configuration.name_node = take(properties, "cfs.namenode.endpoint.address." + name, ".+");
  const std::string block_size = take_if_there(properties, "dfs.default.blocksize", "[1-9][0-9]{0,17}");
  configuration.block_size = to_number(block_size, 1).value_or(settings().block_size);
  for (const auto& [required_name, pattern] : required()) {
    const std::string value = take(properties, required_name, pattern);
    if (required_name == "cfs.access.key") {
      configuration.credentials.access_key = value;
    } else if (required_name == "cfs.secret.key") {
      configuration.credentials.secret_key = value;
    }
  }
  if (!properties.empty()) {
    fail(EINVAL, "the configuration has an unknown property " + properties.begin()->first);
  }
  return configuration;
}

}  // namespace fake
