#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "testing/temporary_directory.h"

namespace veturbo::testing {

// The stand-in for SFCS in tests/fakes, set up in the environment of this process when it is first asked for: the client library
// is loaded once, with the environment as it is then.
class SfcsCluster {
 public:
  static SfcsCluster& get() {
    static SfcsCluster cluster;
    return cluster;
  }

  // Where its files are, seen from outside.
  std::string files() const { return root_ / "files"; }
  // A new folder, as SFCS names it.
  std::string make_folder() {
    const std::string folder = "/test-" + std::to_string(++folders_);
    std::filesystem::create_directory(files() + folder);
    return folder;
  }

 private:
  SfcsCluster() {
    const char* const library = std::getenv("FAKE_CLOUDFS_LIBRARY");
    if (library == nullptr) {
      throw std::runtime_error("FAKE_CLOUDFS_LIBRARY is not set: run the tests by make -C tests/cpp run");
    }
    std::filesystem::create_directory(files());
    write_text(root_ / "callers", "AK secret - -\n");
    write_text(root_ / "name_node", "10.0.0.1:65212");
    set("VETURBOIO_LIBCFS", library);
    set("FAKE_CLOUDFS_ROOT", root_ / "");
    set("SFCS_FSNAME", "tests");
    set("SFCS_REGION", "cn-beijing");
    set("SFCS_AUTHENTICATION_SERVICE_NAME", "service");
    set("SFCS_NS_ID", "1");
    set("SFCS_UFS_PATH", "tos://bucket/folder");
    set("SFCS_MULTI_NIC_WHITELIST", "eth0");
    set("SFCS_NETWORK_SEGMENT", "10.0.0.0/8");
    set("SFCS_ACCESS_KEY", "AK");
    set("SFCS_SECRET_KEY", "secret");
    set("SFCS_NAMENODE_ENDPOINT_ADDRESS", "10.0.0.1:65212");
    set("SFCS_METAINFO_PATH", root_ / "none.json");
  }

  static void set(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); }

  TemporaryDirectory root_;
  int folders_ = 0;
};

}  // namespace veturbo::testing
