// Somebody who may write into the directory, too, puts symbolic links where a save is about to open a file. No file that they
// point to is written or given away.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "base/mapped_region.h"
#include "storage/posix_writable_file.h"
#include "testing/errors.h"
#include "testing/temporary_directory.h"

namespace veturbo::storage {
namespace {

using testing::error_of;
using testing::read_text;
using testing::TemporaryDirectory;
using testing::write_text;

// Before each open() and rename(). A table of functions holds no state, so it stands here.
std::function<void(const std::string& path, int flags)> before_open;
std::function<void(const std::string& from)> before_rename;
bool renames = true;

const SystemCalls kWatchedCalls = [] {
  SystemCalls calls = system_calls();
  calls.open = [](const char* path, int flags, mode_t mode) {
    if (before_open) {
      before_open(path, flags);
    }
    return ::open(path, flags, mode);
  };
  calls.rename = [](const char* from, const char* to) {
    if (before_rename) {
      before_rename(from);
    }
    if (!renames) {
      errno = EXDEV;
      return -1;
    }
    return ::rename(from, to);
  };
  return calls;
}();

class HostileLinks : public ::testing::Test {
 protected:
  HostileLinks() {
    before_open = nullptr;
    before_rename = nullptr;
    renames = true;
    write_text(victim_, "private");
  }

  void save() const { save(std::as_bytes(std::span(std::string_view("new content")))); }
  void save(std::span<const std::byte> content) const {
    PosixWritableFile file("uri", target_, content.size(), kWatchedCalls);
    file.write_at(0, content);
    file.commit();
  }
  void put_link(const std::string& path) const {
    ::unlink(path.c_str());
    std::filesystem::create_symlink(victim_, path);
  }

  TemporaryDirectory directory_;
  TemporaryDirectory elsewhere_;
  std::string victim_ = elsewhere_ / "victim";
  std::string target_ = directory_ / "file";
};

TEST_F(HostileLinks, ThatHaveTheNameOfTheNewFileMakeItTakeAnother) {
  int links = 0;
  before_open = [&](const std::string& path, int flags) {
    if ((flags & O_CREAT) != 0 && ++links <= 3) {
      put_link(path);
    }
  };
  save();
  EXPECT_EQ(links, 4);
  EXPECT_EQ(read_text(target_), "new content");
  EXPECT_EQ(read_text(victim_), "private");
}

// Also where nothing is there yet that could be overwritten.
TEST_F(HostileLinks, ThatPointToNothingMakeNothing) {
  std::filesystem::remove(victim_);
  bool done = false;
  before_open = [&](const std::string& path, int flags) {
    if ((flags & O_CREAT) != 0 && !std::exchange(done, true)) {
      put_link(path);
    }
  };
  save();
  EXPECT_EQ(read_text(target_), "new content");
  EXPECT_FALSE(std::filesystem::exists(victim_));
}

TEST_F(HostileLinks, ThatTakeThePlaceOfTheNewFileAreNotWrittenThrough) {
  bool reopened = false;
  before_open = [&](const std::string& path, int flags) {
    if ((flags & O_DIRECT) != 0) {
      reopened = true;
      put_link(path);
    }
  };
  // Aligned, as what is written past the page cache has to be.
  const MappedRegion content = MappedRegion::anonymous(uint64_t{16} << 20);
  save({content.data(), content.size()});
  ASSERT_TRUE(reopened) << "the test has to run on a local disk";
  EXPECT_EQ(read_text(victim_), "private");
}

TEST_F(HostileLinks, ThatTakeThePlaceOfTheNewFileAreNotCopied) {
  write_text(target_, "old content");
  renames = false;
  before_rename = [&](const std::string& from) { put_link(from); };
  EXPECT_EQ(error_of([&] { save(); }).code(), ELOOP);
  EXPECT_EQ(read_text(target_), "old content");
}

TEST_F(HostileLinks, ThatTakeThePlaceOfTheTargetAreNotWrittenThrough) {
  write_text(target_, "old content");
  renames = false;
  before_rename = [&](const std::string&) { put_link(target_); };
  EXPECT_EQ(error_of([&] { save(); }).code(), ELOOP);
  EXPECT_EQ(read_text(victim_), "private");
}

TEST_F(HostileLinks, OnTheWayAreFollowedOnce) {
  const std::string link = elsewhere_ / "link";
  std::filesystem::create_directory(elsewhere_ / "other");
  std::filesystem::create_directory_symlink(directory_.path(), link);
  target_ = link + "/file";
  before_rename = [&](const std::string&) {
    std::filesystem::remove(link);
    std::filesystem::create_directory_symlink(elsewhere_ / "other", link);
  };
  save();
  EXPECT_EQ(directory_.names(), std::set<std::string>{"file"});
  EXPECT_TRUE(std::filesystem::is_empty(elsewhere_ / "other"));
}

TEST_F(HostileLinks, ThatLookAbandonedAreNeitherFollowedNorTheirFilesRemoved) {
  put_link(directory_ / ".file.0123456789abcdef.veturboio-tmp");
  save();
  EXPECT_EQ(read_text(victim_), "private");
}

}  // namespace
}  // namespace veturbo::storage
