#include "name_server.h"

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>

#include "failure.h"
#include "settings.h"

namespace fake {
namespace {

std::ifstream open_of_root(const std::string& name) {
  std::ifstream stream(settings().root + "/" + name);
  if (settings().root.empty() || !stream) {
    violation("FAKE_CLOUDFS_ROOT=" + settings().root + " has no file " + name);
  }
  return stream;
}

void check_path(const std::string& path) {
  if (path == "/") {
    return;
  }
  if (!path.starts_with('/')) {
    fail(EINVAL, "a path begins with /");
  }
  for (size_t start = 1; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string component = path.substr(start, end - start);
    if (component.empty() || component == "." || component == "..") {
      fail(EINVAL, "no component of a path is empty, . or ..");
    }
    start = end + 1;
  }
  if (path.ends_with('/')) {
    fail(EINVAL, "a path does not end with /");
  }
}

}  // namespace

void check_caller(const Credentials& credentials) {
  std::ifstream stream = open_of_root("callers");
  Credentials caller;
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  bool expired = false;
  for (std::string expiry; stream >> caller.access_key >> caller.secret_key >> caller.token >> expiry;) {
    caller.token = caller.token == "-" ? "" : caller.token;
    if (caller == credentials) {
      expired = expiry != "-" && std::strtod(expiry.c_str(), nullptr) <= now;
      if (!expired) {
        return;
      }
    }
  }
  fail(EACCES, expired ? "credentials have expired" : "credentials are not known");
}

void check_name_node(const std::string& address) {
  std::ifstream stream = open_of_root("name_node");
  std::string current;
  std::getline(stream, current);
  if (address != current) {
    fail(ECONNREFUSED, "no name node at " + address);
  }
}

std::string local_path(const Connection& connection, const std::string& path) {
  check_path(path);
  check_name_node(connection.name_node);
  check_caller(connection.credentials);
  return settings().root + "/files" + path;
}

}  // namespace fake
