#include "storage/sfcs/settings.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "testing/environment.h"
#include "testing/errors.h"
#include "testing/temporary_directory.h"

namespace veturbo::storage::sfcs {
namespace {

using nlohmann::json;
using testing::error_of;
using testing::ScopedEnvironment;
using testing::TemporaryDirectory;
using testing::write_text;

using Variables = std::vector<ScopedEnvironment::Variable>;

Variables nothing_but(const TemporaryDirectory& directory) {
  Variables variables;
  for (const char* const name :
       {"SFCS_FSNAME", "SFCS_REGION", "SFCS_AUTHENTICATION_SERVICE_NAME", "SFCS_NS_ID", "SFCS_UFS_PATH",
        "SFCS_MULTI_NIC_WHITELIST", "SFCS_NETWORK_SEGMENT", "SFCS_LOG_SEVERITY", "SFCS_ENABLE_DNS", "SFCS_TASK_ID",
        "SFCS_SYNC_INTERVAL", "SFCS_ACCESS_KEY", "SFCS_SECRET_KEY", "SFCS_NAMENODE_ENDPOINT_ADDRESS", "SFCS_BLOCK_SIZE",
        "SFCS_CONCAT_DIR", "MLP_RDMA_NIC_NAMES", "MLP_RDMA_NETWORK_SEGMENT"}) {
    variables.emplace_back(name, std::nullopt);
  }
  variables.emplace_back("SFCS_METAINFO_PATH", directory / "default.json");
  variables.emplace_back("CREDENTIAL_PATH", directory / "credentials");
  return variables;
}

const Variables kRequired{{"SFCS_FSNAME", "fs"},
                          {"SFCS_REGION", "cn-beijing"},
                          {"SFCS_AUTHENTICATION_SERVICE_NAME", "service"},
                          {"SFCS_NS_ID", "17"},
                          {"SFCS_UFS_PATH", "bucket"},
                          {"SFCS_MULTI_NIC_WHITELIST", "eth1"},
                          {"SFCS_NETWORK_SEGMENT", "10.0.0.0/24"}};

// One group's entry of a default configuration file in which all is said.
json policy() {
  return {{"mount_path", "/mnt/models"},
          {"cache_prefix", "/cache"},
          {"authentication_service_name", "file service"},
          {"enable_dns", true},
          {"sfcs_fs_name", "file-fs"},
          {"region", "file-region"},
          {"ufs_path", "file bucket"},
          {"ns_id", "18"},
          {"name_node_endpoint", "10.0.0.2:65212"}};
}

class SfcsSettingsTest : public ::testing::Test {
 protected:
  void write_default(const json& groups) const { write_text(file_, json{{"cache_policies", groups}}.dump()); }
  void write_credentials(const std::string& name, const std::string& text) const {
    std::filesystem::create_directory(credentials_);
    write_text(credentials_ + "/" + name, text);
  }
  static std::string failure(const std::string& path = "/a/model") {
    const Error error = error_of([&] { locate(path); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.message();
  }
  static std::string property(const Location& location, const std::string& name) {
    for (const auto& [key, value] : location.settings.properties) {
      if (key == name) {
        return value;
      }
    }
    return "none";
  }

  TemporaryDirectory directory_{"/tmp"};
  std::string file_ = directory_ / "default.json";
  std::string credentials_ = directory_ / "credentials";

 private:
  const ScopedEnvironment nothing_{nothing_but(directory_)};
};

TEST_F(SfcsSettingsTest, ComeFromTheEnvironment) {
  const ScopedEnvironment variables(kRequired);
  const Location location = locate("/a//b/../model");
  EXPECT_EQ(location.path, "/a/model");
  EXPECT_EQ(location.mount_group, "");
  EXPECT_EQ(location.concat_dir, "");
  EXPECT_EQ(location.settings.fs_name, "fs");
  EXPECT_EQ(location.settings.name_node, "");
  EXPECT_FALSE(location.settings.access);
  EXPECT_EQ(location.settings.properties, (Properties{{"dfs.default.uri", "cfs://fs.sfcs-cn-beijing.ivolces.com"},
                                                      {"dfs.authentication.service.name", "service"},
                                                      {"cfs.filesystem.ns-id", "17"},
                                                      {"cfs.filesystem.ufs-path", "bucket"},
                                                      {"cfs.client.multi-nic.whitelist", "eth1"},
                                                      {"cfs.client.network.segment", "10.0.0.0/24"},
                                                      {"cfs.metrics.server.host", "metricserver-cn-beijing.cfs.ivolces.com"},
                                                      {"dfs.client.log.severity", "INFO"},
                                                      {"cfs.filesystem.resolve.addr.by.dns", "false"},
                                                      {"cfs.filesystem.task-id", "sfcs"},
                                                      {"cfs.filesystem.sync-interval", "-1"},
                                                      {"cfs.filesystem.fs-mode", "ACC"},
                                                      {"cfs.metrics.emitters", "metric_server;local_prometheus"},
                                                      {"cfs.client.metadata-cache.enable", "false"},
                                                      {"rpc.client.channel.pool.size", "32"},
                                                      {"dfs.default.replica", "2"},
                                                      {"cfs.client.multi-nic.enabled", "true"},
                                                      {"fs.datanode.router.ignore-main-nic", "true"},
                                                      {"cfs.datanode.router.shuffle", "true"}}));
}

TEST_F(SfcsSettingsTest, HaveOptionalValues) {
  const ScopedEnvironment required(kRequired);
  const ScopedEnvironment variables{{"SFCS_LOG_SEVERITY", "ERROR"}, {"SFCS_ENABLE_DNS", "1"},
                                    {"SFCS_TASK_ID", "task"},       {"SFCS_SYNC_INTERVAL", "5"},
                                    {"SFCS_BLOCK_SIZE", "4194304"}, {"SFCS_CONCAT_DIR", "/parts/"}};
  const Location location = locate("/a/model");
  EXPECT_EQ(property(location, "dfs.client.log.severity"), "ERROR");
  EXPECT_EQ(property(location, "cfs.filesystem.resolve.addr.by.dns"), "true");
  EXPECT_EQ(property(location, "cfs.filesystem.task-id"), "task");
  EXPECT_EQ(property(location, "cfs.filesystem.sync-interval"), "5");
  EXPECT_EQ(property(location, "dfs.default.blocksize"), "4194304");
  EXPECT_EQ(location.concat_dir, "/parts");
}

TEST_F(SfcsSettingsTest, NameAllThatIsMissingAtOnce) {
  EXPECT_EQ(failure(),
            "not set: SFCS_FSNAME, SFCS_REGION, SFCS_AUTHENTICATION_SERVICE_NAME, SFCS_NS_ID, SFCS_UFS_PATH, "
            "SFCS_MULTI_NIC_WHITELIST, SFCS_NETWORK_SEGMENT (there is no default configuration file " +
                file_ + ")");
  const ScopedEnvironment required(kRequired);
  for (const auto& [name, value] : kRequired) {
    for (const std::optional<std::string>& none : {std::optional<std::string>(), std::optional<std::string>("")}) {
      const ScopedEnvironment variable{{name, none}};
      EXPECT_EQ(failure(), "not set: " + name + " (there is no default configuration file " + file_ + ")");
    }
  }
}

TEST_F(SfcsSettingsTest, SayWhyTheDefaultFileDidNotHelp) {
  const std::string all =
      "not set: SFCS_FSNAME, SFCS_REGION, SFCS_AUTHENTICATION_SERVICE_NAME, SFCS_NS_ID, SFCS_UFS_PATH, "
      "SFCS_MULTI_NIC_WHITELIST, SFCS_NETWORK_SEGMENT ";
  write_default({{"/other", policy()}, {"/a/mod", policy()}});
  EXPECT_EQ(failure(), all + "(the default configuration file " + file_ + " has no group for /a/model)");
  json some = policy();
  some.erase("region");
  some["ns_id"] = "";
  some["ufs_path"] = nullptr;
  write_default({{"/a", some}});
  EXPECT_EQ(failure(), "not set: SFCS_REGION, SFCS_NS_ID, SFCS_UFS_PATH (the default configuration file " + file_ +
                           " does not have them for its group /a)");
}

TEST_F(SfcsSettingsTest, MayDifferByMountGroup) {
  const ScopedEnvironment required(kRequired);
  const ScopedEnvironment variables{{"SFCS_FSNAME", R"({"a": "fs-a", "/b/": "fs-b"})"},
                                    {"SFCS_NS_ID", R"({"a": 18014398509481988, "b": "2"})"},
                                    {"SFCS_UFS_PATH", R"({"a": "bucket-a", "b": "bucket-b"})"},
                                    {"SFCS_CONCAT_DIR", R"({"a": "/a/parts"})"}};
  const Location a = locate("/a/dir/model");
  EXPECT_EQ(a.mount_group, "a");
  EXPECT_EQ(a.path, "/a/dir/model");
  EXPECT_EQ(a.concat_dir, "/a/parts");
  EXPECT_EQ(a.settings.fs_name, "fs-a");
  EXPECT_EQ(property(a, "cfs.filesystem.ns-id"), "18014398509481988");
  EXPECT_EQ(property(a, "cfs.filesystem.ufs-path"), "bucket-a");
  const Location b = locate("/b/model");
  EXPECT_EQ(b.mount_group, "b");
  EXPECT_EQ(b.concat_dir, "");
  EXPECT_EQ(b.settings.fs_name, "fs-b");
  EXPECT_EQ(property(b, "dfs.default.uri"), "cfs://fs-b.sfcs-cn-beijing.ivolces.com");
}

TEST_F(SfcsSettingsTest, RefuseAMountGroupThatHasNoValue) {
  const ScopedEnvironment required(kRequired);
  for (const std::string name : {"SFCS_FSNAME", "SFCS_NS_ID", "SFCS_UFS_PATH"}) {
    for (const std::string value : {R"({"b": "x"})", "{}", R"({"a": ""})", R"({"a": null})", R"({"a/model": "x"})"}) {
      const ScopedEnvironment variable{{name, value}};
      EXPECT_EQ(failure(), name + " has no value for the mount group \"a\"") << value;
    }
  }
}

TEST_F(SfcsSettingsTest, RefuseVariablesThatAreNoJson) {
  const ScopedEnvironment required(kRequired);
  for (const std::string name : {"SFCS_FSNAME", "SFCS_NS_ID", "SFCS_UFS_PATH", "SFCS_CONCAT_DIR"}) {
    for (const std::string value : {"{", "{a: b}", R"({"a": "x"} y)"}) {
      const ScopedEnvironment variable{{name, value}};
      EXPECT_EQ(failure(), name + " begins with '{', but is not a JSON object") << value;
    }
    for (const std::string value : {R"({"a": ["x"]})", R"({"a": 1.5})", R"({"a": true})", R"({"a": {"b": "c"}})"}) {
      const ScopedEnvironment variable{{name, value}};
      EXPECT_EQ(failure(), name + ": the value for the mount group \"a\" is not a string") << value;
    }
  }
}

TEST_F(SfcsSettingsTest, RefuseABlockSizeThatIsNone) {
  const ScopedEnvironment required(kRequired);
  for (const std::string value : {"0", "-1", "4M", "x", "1.5", " 1", "9223372036854775808"}) {
    const ScopedEnvironment variable{{"SFCS_BLOCK_SIZE", value}};
    EXPECT_EQ(failure(), "SFCS_BLOCK_SIZE=" + value + ": give a positive whole number of bytes");
  }
}

TEST_F(SfcsSettingsTest, TakeManyWordsForTrueAndFalse) {
  const ScopedEnvironment required(kRequired);
  const std::map<std::string, std::string> words{{"true", "true"}, {"TRUE", "true"}, {"1", "true"},      {"Yes", "true"},
                                                 {"on", "true"},   {"", "false"},    {"False", "false"}, {"0", "false"},
                                                 {"no", "false"},  {"OFF", "false"}};
  for (const auto& [word, expected] : words) {
    const ScopedEnvironment variable{{"SFCS_ENABLE_DNS", word}};
    EXPECT_EQ(property(locate("/a"), "cfs.filesystem.resolve.addr.by.dns"), expected) << word;
  }
  const ScopedEnvironment variable{{"SFCS_ENABLE_DNS", "maybe"}};
  EXPECT_EQ(failure(), "SFCS_ENABLE_DNS=maybe: give true or false");
}

TEST_F(SfcsSettingsTest, ComeFromTheDefaultFile) {
  write_default({{"/mnt/models", policy()}});
  const ScopedEnvironment variables{{"MLP_RDMA_NIC_NAMES", "eth2,eth3"}, {"MLP_RDMA_NETWORK_SEGMENT", "10.1.0.0/16"}};
  const Location location = locate("/mnt/models/x/model");
  EXPECT_EQ(location.path, "/cache/x/model");
  EXPECT_EQ(location.mount_group, "mnt/models");
  EXPECT_EQ(location.settings.fs_name, "file-fs");
  EXPECT_EQ(location.settings.name_node, "10.0.0.2:65212");
  EXPECT_FALSE(location.settings.access);
  EXPECT_EQ(property(location, "dfs.default.uri"), "cfs://file-fs.sfcs-file-region.ivolces.com");
  EXPECT_EQ(property(location, "dfs.authentication.service.name"), "file service");
  EXPECT_EQ(property(location, "cfs.filesystem.ns-id"), "18");
  EXPECT_EQ(property(location, "cfs.filesystem.ufs-path"), "file bucket");
  EXPECT_EQ(property(location, "cfs.client.multi-nic.whitelist"), "eth2,eth3");
  EXPECT_EQ(property(location, "cfs.client.network.segment"), "10.1.0.0/16");
  EXPECT_EQ(property(location, "cfs.metrics.server.host"), "metricserver-file-region.cfs.ivolces.com");
  EXPECT_EQ(property(location, "cfs.filesystem.resolve.addr.by.dns"), "true");
}

TEST_F(SfcsSettingsTest, OfTheEnvironmentGoBeforeTheDefaultFile) {
  write_default({{"/mnt/models", policy()}});
  const ScopedEnvironment required(kRequired);
  const ScopedEnvironment variables{{"MLP_RDMA_NIC_NAMES", "eth2"},
                                    {"MLP_RDMA_NETWORK_SEGMENT", "10.1.0.0/16"},
                                    {"SFCS_ENABLE_DNS", "false"},
                                    {"SFCS_NAMENODE_ENDPOINT_ADDRESS", "10.0.0.1:65212"}};
  const Location location = locate("/mnt/models/model");
  EXPECT_EQ(location.path, "/cache/model");
  EXPECT_EQ(location.settings.fs_name, "fs");
  EXPECT_EQ(location.settings.name_node, "10.0.0.1:65212");
  EXPECT_EQ(property(location, "dfs.default.uri"), "cfs://fs.sfcs-cn-beijing.ivolces.com");
  EXPECT_EQ(property(location, "dfs.authentication.service.name"), "service");
  EXPECT_EQ(property(location, "cfs.filesystem.ns-id"), "17");
  EXPECT_EQ(property(location, "cfs.filesystem.ufs-path"), "bucket");
  EXPECT_EQ(property(location, "cfs.client.multi-nic.whitelist"), "eth1");
  EXPECT_EQ(property(location, "cfs.client.network.segment"), "10.0.0.0/24");
  EXPECT_EQ(property(location, "cfs.filesystem.resolve.addr.by.dns"), "false");
}

TEST_F(SfcsSettingsTest, TakeTheNetworkOfTheNic) {
  write_default({{"/mnt/models", policy()}});
  {
    const ScopedEnvironment variables{{"MLP_RDMA_NIC_NAMES", "lo"}};
    EXPECT_EQ(property(locate("/mnt/models/m"), "cfs.client.network.segment"), "127.0.0.0/8");
  }
  {
    const ScopedEnvironment variables{{"MLP_RDMA_NETWORK_SEGMENT", "10.1.0.0/16"}};
    EXPECT_EQ(property(locate("/mnt/models/m"), "cfs.client.multi-nic.whitelist"), "eth0");
  }
  const ScopedEnvironment variables{{"MLP_RDMA_NIC_NAMES", "nosuchnic"}};
  EXPECT_EQ(failure("/mnt/models/m"),
            "NIC nosuchnic has no IPv4 network: set MLP_RDMA_NETWORK_SEGMENT to the one that leads to SFCS, such as 10.0.0.0/24");
}

TEST_F(SfcsSettingsTest, AreThoseOfTheLongestGroup) {
  const ScopedEnvironment variables{{"MLP_RDMA_NETWORK_SEGMENT", "10.1.0.0/16"}};
  const auto named = [](const std::string& name) {
    json named = policy();
    named["sfcs_fs_name"] = name;
    return named;
  };
  write_default({{"/a", named("short")}, {"a/b/", named("long")}, {"/a/b/cd", named("no prefix")}, {"c", named("bare")}});
  EXPECT_EQ(locate("/a/b/c").settings.fs_name, "long");
  EXPECT_EQ(locate("/a/b/c").mount_group, "a/b");
  EXPECT_EQ(locate("/a/b").settings.fs_name, "long");
  EXPECT_EQ(locate("/a/bc").settings.fs_name, "short");
  EXPECT_EQ(locate("/c/m").settings.fs_name, "bare");
  write_default({{"/", named("root")}, {"/a", named("a")}});
  EXPECT_EQ(locate("/m").settings.fs_name, "root");
  EXPECT_EQ(locate("/m").mount_group, "");
  EXPECT_EQ(locate("/a/m").settings.fs_name, "a");
}

TEST_F(SfcsSettingsTest, PutTheCachesPrefixInThePlaceOfTheMount) {
  const ScopedEnvironment variables{{"MLP_RDMA_NETWORK_SEGMENT", "10.1.0.0/16"}};
  struct Case {
    json mount;
    json prefix;
    const char* path;
  };
  const Case cases[] = {
      {"/a/b", "/cache", "/cache/m"},
      {"/a/b/", "cache/", "/cache/m"},
      {"a", "/cache", "/cache/b/m"},
      {"/a/b", "", "/m"},
      {"/a/b", "/", "/m"},
      {"/", "/cache", "/cache/a/b/m"},
      {"", "/cache", "/cache/m"},
      {nullptr, "/cache", "/cache/m"},
      {"/a/b", nullptr, "/a/b/m"},
      {"/b", "/cache", "/a/b/m"},
      {nullptr, nullptr, "/a/b/m"},
  };
  for (const Case& expected : cases) {
    json fields = policy();
    fields["mount_path"] = expected.mount;
    fields["cache_prefix"] = expected.prefix;
    write_default({{"/a/b", fields}});
    EXPECT_EQ(locate("/a/b/m").path, expected.path) << fields;
  }
}

TEST_F(SfcsSettingsTest, HaveTheGroupOfTheVariableWhereTheFilesIsTheRoot) {
  write_default({{"/", policy()}});
  const ScopedEnvironment variables{{"MLP_RDMA_NETWORK_SEGMENT", "10.1.0.0/16"}, {"SFCS_NS_ID", R"({"a": "1"})"}};
  EXPECT_EQ(locate("/a/m").mount_group, "a");
}

TEST_F(SfcsSettingsTest, RefuseADamagedDefaultFile) {
  const ScopedEnvironment required(kRequired);
  const std::string name = "the default configuration file " + file_;
  for (const char* const text : {"", "{", "[]", "\"x\"", "{} x"}) {
    write_text(file_, text);
    EXPECT_EQ(failure(), name + " is not a JSON object") << text;
  }
  for (const char* const text : {"{}", R"({"cache_policies": []})", R"({"cache_policies": null})"}) {
    write_text(file_, text);
    EXPECT_EQ(failure(), name + " has no object cache_policies") << text;
  }
  write_default({{"/a", "x"}});
  EXPECT_EQ(failure(), name + ": cache_policies[\"/a\"] is not an object");
  for (const char* const field : {"mount_path", "cache_prefix", "authentication_service_name", "enable_dns", "sfcs_fs_name",
                                  "region", "ufs_path", "ns_id", "name_node_endpoint"}) {
    json fields = policy();
    fields[field] = json::array({"x"});
    write_default({{"/a", fields}});
    EXPECT_EQ(failure(), name + ": cache_policies[\"/a\"][\"" + field + "\"] is not a string");
  }
  json fields = policy();
  fields["enable_dns"] = "maybe";
  write_default({{"/a", fields}});
  EXPECT_EQ(failure(), name + ": cache_policies[\"/a\"][\"enable_dns\"] is neither true nor false");
}

TEST_F(SfcsSettingsTest, TakeEnableDnsInTheDefaultFileAsATruthValueOrAWord) {
  const ScopedEnvironment required(kRequired);
  const std::pair<json, const char*> values[] = {{true, "true"}, {false, "false"},   {"True", "true"},
                                                 {1, "true"},    {nullptr, "false"}, {"", "false"}};
  for (const auto& [value, expected] : values) {
    json fields = policy();
    fields["enable_dns"] = value;
    write_default({{"/a", fields}});
    EXPECT_EQ(property(locate("/a/m"), "cfs.filesystem.resolve.addr.by.dns"), expected) << value;
  }
}

TEST_F(SfcsSettingsTest, CannotComeFromAFileThatCannotBeRead) {
  std::filesystem::create_directory(file_);
  const Error error = error_of([] { locate("/a"); });
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_EQ(error.message(), file_ + ": Is a directory");
}

TEST_F(SfcsSettingsTest, DoNotNeedADefaultFileInAHomeThatIsClosedToUs) {
  if (::geteuid() != 0 ||
      (std::filesystem::status("/root").permissions() & std::filesystem::perms::others_exec) != std::filesystem::perms::none) {
    GTEST_SKIP() << "only root can become somebody who may not look into /root";
  }
  const ScopedEnvironment variables{{"SFCS_METAINFO_PATH", {}}};
  EXPECT_EXIT(
      {
        static_cast<void>(::setuid(12345));
        std::cerr << error_of([] { locate("/a"); }).message();
        const ScopedEnvironment required(kRequired);
        ::_exit(locate("/a").settings.fs_name == "fs" ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "the default configuration file /root/.volc/SFCSConfiguration.json cannot be read\\)");
  const ScopedEnvironment explicit_file{{"SFCS_METAINFO_PATH", "/root/none.json"}};
  EXPECT_EXIT(
      {
        static_cast<void>(::setuid(12345));
        std::cerr << error_of([] { locate("/a"); }).message();
        ::_exit(0);
      },
      ::testing::ExitedWithCode(0), "^/root/none.json: Permission denied$");
}

class SfcsAccessTest : public SfcsSettingsTest {
  const ScopedEnvironment required_{kRequired};
};

TEST_F(SfcsAccessTest, ComesFromTheEnvironment) {
  write_credentials("MLP_ACCESS_KEY", "file access");
  write_credentials("MLP_SECRET_KEY", "file secret");
  const ScopedEnvironment variables{
      {"SFCS_ACCESS_KEY", "access"}, {"SFCS_SECRET_KEY", "secret"}, {"SFCS_NAMENODE_ENDPOINT_ADDRESS", "10.0.0.1:65212"}};
  const Location location = locate("/a/m");
  ASSERT_TRUE(location.settings.access);
  EXPECT_EQ(location.settings.access->credentials.access_key, "access");
  EXPECT_EQ(location.settings.access->credentials.secret_key.text(), "secret");
  EXPECT_TRUE(location.settings.access->credentials.session_token.empty());
  EXPECT_EQ(location.settings.access->name_node, "10.0.0.1:65212");
  EXPECT_EQ(location.settings.name_node, "10.0.0.1:65212");
}

TEST_F(SfcsAccessTest, IsToTheDefaultFilesNameNode) {
  write_default({{"/a", policy()}});
  const ScopedEnvironment variables{{"SFCS_ACCESS_KEY", "access"}, {"SFCS_SECRET_KEY", "secret"}};
  const Location location = locate("/a/m");
  ASSERT_TRUE(location.settings.access);
  EXPECT_EQ(location.settings.access->name_node, "10.0.0.2:65212");
}

TEST_F(SfcsAccessTest, ComesFromFiles) {
  write_credentials("MLP_ACCESS_KEY", "file access\n");
  write_credentials("MLP_SECRET_KEY", " file secret\r\n");
  EXPECT_FALSE(locate("/a/m").settings.access);  // no name node is known
  const ScopedEnvironment variables{{"SFCS_NAMENODE_ENDPOINT_ADDRESS", "10.0.0.1:65212"}};
  const Location location = locate("/a/m");
  ASSERT_TRUE(location.settings.access);
  EXPECT_EQ(location.settings.access->credentials.access_key, "file access");
  EXPECT_EQ(location.settings.access->credentials.secret_key.text(), "file secret");
  EXPECT_EQ(location.settings.access->name_node, "10.0.0.1:65212");
}

TEST_F(SfcsAccessTest, IsTheTrustedServicesWithoutKeys) {
  const ScopedEnvironment variables{{"SFCS_NAMENODE_ENDPOINT_ADDRESS", "10.0.0.1:65212"}};
  const Location location = locate("/a/m");
  EXPECT_FALSE(location.settings.access);
  EXPECT_EQ(location.settings.name_node, "10.0.0.1:65212");
}

TEST_F(SfcsAccessTest, IsNotGivenByHalf) {
  {
    const ScopedEnvironment variables{{"SFCS_ACCESS_KEY", "access"}};
    EXPECT_EQ(failure(), "SFCS_ACCESS_KEY is set, but SFCS_SECRET_KEY is not: set both or none of them");
  }
  {
    const ScopedEnvironment variables{{"SFCS_SECRET_KEY", "secret"}};
    EXPECT_EQ(failure(), "SFCS_SECRET_KEY is set, but SFCS_ACCESS_KEY is not: set both or none of them");
  }
}

TEST_F(SfcsAccessTest, IsLentWhereNobodyKnowsTheNameNode) {
  const ScopedEnvironment variables{{"SFCS_ACCESS_KEY", "access"}, {"SFCS_SECRET_KEY", "secret"}};
  EXPECT_FALSE(locate("/a/m").settings.access);
}

TEST_F(SfcsAccessTest, IsNotGivenByHalfInFiles) {
  const ScopedEnvironment variables{{"SFCS_NAMENODE_ENDPOINT_ADDRESS", "10.0.0.1:65212"}};
  const std::string access = credentials_ + "/MLP_ACCESS_KEY";
  const std::string secret = credentials_ + "/MLP_SECRET_KEY";
  write_credentials("MLP_ACCESS_KEY", "file access");
  EXPECT_EQ(failure(), "there is a credential file " + access + ", but no " + secret);
  write_credentials("MLP_SECRET_KEY", "\n");
  EXPECT_EQ(failure(), "the credential file " + secret + " is empty");
  std::filesystem::remove(access);
  EXPECT_EQ(failure(), "there is a credential file " + secret + ", but no " + access);
}

TEST(SfcsAccessProperties, LeaveOutWhatIsEmpty) {
  const auto texts = [](const Access& access) {
    std::map<std::string, std::string> texts;
    for (const auto& [name, value] : access_properties("fs", access)) {
      texts[name] = value.text();
    }
    return texts;
  };
  const auto secret = [](std::string_view text) { return Secret(text); };
  EXPECT_EQ(
      texts({.credentials = {.access_key = "a", .secret_key = secret("s"), .session_token = secret("t")}, .name_node = "n"}),
      (std::map<std::string, std::string>{{"cfs.access.key", "a"},
                                          {"cfs.secret.key", "s"},
                                          {"cfs.security.token", "t"},
                                          {"cfs.namenode.endpoint.address.fs", "n"}}));
  EXPECT_EQ(texts({.credentials = {.access_key = "a", .secret_key = secret("s"), .session_token = {}}, .name_node = ""}),
            (std::map<std::string, std::string>{{"cfs.access.key", "a"}, {"cfs.secret.key", "s"}}));
}

}  // namespace
}  // namespace veturbo::storage::sfcs
