#include "storage/sfcs/configuration_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "testing/environment.h"
#include "testing/errors.h"
#include "testing/temporary_directory.h"

namespace veturbo::storage::sfcs {
namespace {

using testing::error_of;
using testing::read_text;
using testing::ScopedEnvironment;
using testing::TemporaryDirectory;
using testing::write_text;

mode_t mode_of(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777;
}

std::string folder_of(const ConfigurationFile& file) {
  return std::filesystem::path(file.path()).parent_path().string();
}

std::string parent_of(const ConfigurationFile& file) {
  return std::filesystem::path(folder_of(file)).parent_path().string();
}

Settings settings(const std::string& value = "value") {
  return {.fs_name = "fs", .properties = {{"a.property", value}}, .access = std::nullopt, .name_node = ""};
}

Access access(std::string_view secret = "secret") {
  return {.credentials = {.access_key = "access", .secret_key = Secret(secret), .session_token = {}}, .name_node = "10.0.0.1:1"};
}

class WorkingDirectory {
 public:
  explicit WorkingDirectory(const std::string& path) : before_(std::filesystem::current_path()) {
    std::filesystem::current_path(path);
  }
  ~WorkingDirectory() { std::filesystem::current_path(before_); }
  WorkingDirectory(const WorkingDirectory&) = delete;
  WorkingDirectory& operator=(const WorkingDirectory&) = delete;

 private:
  std::filesystem::path before_;
};

TEST(SfcsConfigurationFile, IsXmlInHadoopsForm) {
  ConfigurationFile file;
  file.write(settings(), access());
  EXPECT_EQ(read_text(file.path()), R"(<?xml version="1.0" encoding="UTF-8"?>
<configuration>
  <property>
    <name>a.property</name>
    <value>value</value>
  </property>
  <property>
    <name>cfs.access.key</name>
    <value>access</value>
  </property>
  <property>
    <name>cfs.secret.key</name>
    <value>secret</value>
  </property>
  <property>
    <name>cfs.namenode.endpoint.address.fs</name>
    <value>10.0.0.1:1</value>
  </property>
</configuration>
)");
}

TEST(SfcsConfigurationFile, IsWellFormedWhateverTheValues) {
  ConfigurationFile file;
  file.write(settings("<a & \"b\">]]>\r\n\t\xC3\xBC"), access("s<>&"));
  const std::string text = read_text(file.path());
  EXPECT_NE(text.find("<value>&lt;a &amp; \"b\"&gt;]]&gt;&#13;\n\t\xC3\xBC</value>"), std::string::npos) << text;
  EXPECT_NE(text.find("<value>s&lt;&gt;&amp;</value>"), std::string::npos) << text;
}

TEST(SfcsConfigurationFile, HasNoValueThatXmlCannotHold) {
  ConfigurationFile file;
  const Error error = error_of([&] { file.write(settings("a\x01"), access()); });
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(error.message(), "the value of a.property has a control character");
  EXPECT_EQ(error_of([&] { file.write(settings("a\xFF"), access()); }).message(), "the value of a.property is not UTF-8");
  EXPECT_FALSE(std::filesystem::exists(file.path()));
}

TEST(SfcsConfigurationFile, IsForItsUserOnly) {
  const mode_t before = ::umask(0);
  {
    ConfigurationFile file;
    file.write(settings(), access());
    EXPECT_EQ(mode_of(file.path()), 0600U);
    EXPECT_EQ(mode_of(folder_of(file)), 0700U);
    ::umask(0277);
    file.write(settings(), access());
    EXPECT_EQ(mode_of(file.path()), 0600U);
  }
  ::umask(before);
}

TEST(SfcsConfigurationFile, IsReplacedInOneStep) {
  ConfigurationFile file;
  file.write(settings("first"), access());
  const std::string before = read_text(file.path());
  const UniqueFd old(::open(file.path().c_str(), O_RDONLY | O_CLOEXEC));
  file.write(settings("second"), access());
  EXPECT_NE(read_text(file.path()).find("<value>second</value>"), std::string::npos);
  std::string still(before.size() + 100, '\0');
  still.resize(static_cast<size_t>(::pread(old.get(), still.data(), still.size(), 0)));
  EXPECT_EQ(still, before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_of(file)), std::filesystem::directory_iterator()), 1);
}

TEST(SfcsConfigurationFile, ThatCannotBeWrittenIsAnErrorThatNamesIt) {
  ConfigurationFile file;
  std::filesystem::create_directory(file.path());
  const Error error = error_of([&] { file.write(settings(), access()); });
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_EQ(error.message(), "cannot write the configuration " + file.path() + ": rename: Is a directory");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_of(file)), std::filesystem::directory_iterator()), 1);
  std::filesystem::remove_all(folder_of(file));
  EXPECT_EQ(error_of([&] { file.write(settings(), access()); }).message(),
            "cannot write the configuration " + file.path() + ": No such file or directory");
}

TEST(SfcsConfigurationFile, LeavesNothing) {
  std::string folder;
  {
    ConfigurationFile file;
    file.write(settings(), access());
    folder = folder_of(file);
  }
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST(SfcsConfigurationFile, IsInMemoryWhereThereIsSuchAFolder) {
  if (::access("/dev/shm", W_OK) != 0) {
    GTEST_SKIP() << "this machine has no /dev/shm to write to";
  }
  const TemporaryDirectory elsewhere("/tmp");
  const ScopedEnvironment variables{{"TMPDIR", elsewhere.path()}};
  EXPECT_EQ(parent_of(ConfigurationFile()), "/dev/shm");
}

// All that follow take a folder of their own, so that nobody else's are in the way.
class SfcsConfigurationFolderTest : public ::testing::Test {
 protected:
  std::string stale(const std::string& name) const {
    const std::string folder = directory_ / name;
    std::filesystem::create_directory(folder);
    write_text(folder + "/libcloudfs.xml", "secret");
    return folder;
  }

  const TemporaryDirectory directory_{"/tmp"};

 private:
  const ScopedEnvironment variables_{{"TMPDIR", directory_.path()}};
  const WorkingDirectory working_{std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/proc"};
};

TEST_F(SfcsConfigurationFolderTest, IsNeverInTheWorkingDirectory) {
  EXPECT_EQ(parent_of(ConfigurationFile()), directory_.path());
  {
    const ScopedEnvironment variables{{"TMPDIR", {}}};
    EXPECT_EQ(parent_of(ConfigurationFile()), "/tmp");
  }
  {
    const ScopedEnvironment variables{{"TMPDIR", "."}};
    EXPECT_EQ(parent_of(ConfigurationFile()), "/tmp");
  }
  const ScopedEnvironment variables{{"TMPDIR", directory_ / "none"}};
  EXPECT_EQ(parent_of(ConfigurationFile()), "/tmp");
}

TEST_F(SfcsConfigurationFolderTest, IsMadeSomewhereEvenIfAllIsInTheWorkingDirectory) {
  const WorkingDirectory root("/");
  const ConfigurationFile file;
  EXPECT_TRUE(std::filesystem::is_directory(folder_of(file)));
}

TEST_F(SfcsConfigurationFolderTest, OfADeadProcessIsRemoved) {
  const std::string dead = stale("veturboio-sfcs-dead00");
  const std::string foreign = stale("veturboio-other-dead00");
  write_text(directory_ / "veturboio-sfcs-file00", "no folder");
  std::filesystem::create_directory_symlink(foreign, directory_ / "veturboio-sfcs-link00");
  const ConfigurationFile file;
  EXPECT_EQ(directory_.names(), (std::set<std::string>{"veturboio-other-dead00", "veturboio-sfcs-file00", "veturboio-sfcs-link00",
                                                       std::filesystem::path(folder_of(file)).filename().string()}));
  EXPECT_TRUE(std::filesystem::exists(foreign + "/libcloudfs.xml"));
}

TEST_F(SfcsConfigurationFolderTest, OfALivingOneStays) {
  ConfigurationFile first;
  first.write(settings(), access());
  const ConfigurationFile second;
  EXPECT_NE(first.path(), second.path());
  EXPECT_TRUE(std::filesystem::exists(first.path()));
}

TEST_F(SfcsConfigurationFolderTest, OfAnotherUserStays) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can give a folder away";
  }
  const std::string other = stale("veturboio-sfcs-other0");
  ASSERT_EQ(::chown(other.c_str(), 12345, 12345), 0);
  const ConfigurationFile file;
  EXPECT_TRUE(std::filesystem::exists(other + "/libcloudfs.xml"));
}

TEST_F(SfcsConfigurationFolderTest, IsLeftByAForkedChild) {
  std::optional<ConfigurationFile> file(std::in_place);
  file->write(settings(), access());
  const std::string path = file->path();
  const pid_t child = ::fork();
  if (child == 0) {
    file.reset();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(std::filesystem::exists(path));
  const ConfigurationFile other;  // the child's end has not given our lock back
  EXPECT_TRUE(std::filesystem::exists(path));
  file.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(SfcsConfigurationFolderTest, OfAKilledProcessIsRemovedByTheNext) {
  const pid_t child = ::fork();
  if (child == 0) {
    ConfigurationFile file;
    file.write(settings(), access());
    ::_exit(0);  // without a destructor
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(directory_.names().size(), 1U);
  const std::string left = *directory_.names().begin();
  const ConfigurationFile file;
  EXPECT_EQ(directory_.names(), std::set<std::string>{std::filesystem::path(folder_of(file)).filename().string()});
  EXPECT_NE(directory_.names(), std::set<std::string>{left});
}

TEST_F(SfcsConfigurationFolderTest, IsMadeByManyProcessesAtOnce) {
  constexpr int kProcesses = 4;
  pid_t children[kProcesses];
  for (pid_t& child : children) {
    child = ::fork();
    if (child == 0) {
      for (int i = 0; i < 50; ++i) {
        ConfigurationFile file;
        file.write(settings(), access());
        if (!std::filesystem::exists(file.path())) {
          ::_exit(1);
        }
      }
      ::_exit(0);
    }
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(directory_.names(), std::set<std::string>{});
}

}  // namespace
}  // namespace veturbo::storage::sfcs
