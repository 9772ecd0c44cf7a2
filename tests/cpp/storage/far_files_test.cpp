// What tells far storage from near, and reads from it. Files on a far file system: tests/python/test_far_files.py.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/unique_fd.h"
#include "storage/file_system.h"
#include "storage/read_timer.h"
#include "storage/reader_handles.h"
#include "testing/temporary_directory.h"

namespace veturbo::storage {
namespace {

using std::chrono::milliseconds;

UniqueFd open_file(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

TEST(FileSystems, AreKnownByTheirKind) {
  EXPECT_EQ(file_system_of(open_file("/dev/shm").get()).kind, FileSystem::Kind::kMemory);
  EXPECT_EQ(file_system_of(open_file("/proc/self/status").get()).kind, FileSystem::Kind::kUnknown);
  EXPECT_EQ(file_system_of(-1).kind, FileSystem::Kind::kUnknown);
}

TEST(ReadTimer, TellsWaitingFromWorkingAndLongFromMuch) {
  {
    const ReadTimer timer;
    std::this_thread::sleep_for(milliseconds(5));
    EXPECT_TRUE(timer.waited(1));
    EXPECT_FALSE(timer.waited(uint64_t{1} << 40));
  }
  const ReadTimer timer;
  const auto end = std::chrono::steady_clock::now() + milliseconds(5);
  while (std::chrono::steady_clock::now() < end) {
  }
  EXPECT_FALSE(timer.waited(1));
}

class ReaderHandlesTest : public ::testing::Test {
 protected:
  ReaderHandlesTest() { testing::write_text(directory_ / "file", "content"); }

  testing::TemporaryDirectory directory_;
};

std::string read_all(int fd) {
  std::string text(7, ' ');
  EXPECT_EQ(::pread(fd, text.data(), text.size(), 0), 7);
  return text;
}

TEST_F(ReaderHandlesTest, AreOneForEachReaderAtOnceAndUsedAgain) {
  const size_t before = testing::open_descriptors();
  {
    ReaderHandles handles(open_file(directory_ / "file"), O_RDONLY | O_CLOEXEC, system_calls());
    std::filesystem::rename(directory_ / "file", directory_ / "elsewhere");
    testing::write_text(directory_ / "file", "another one");
    const int outer = handles.read_alone([&](int fd) {
      EXPECT_EQ(read_all(fd), "content");
      const int inner = handles.read_alone([&](int other) {
        EXPECT_EQ(read_all(other), "content") << "it is the file that was opened, whatever has its name now";
        return other;
      });
      EXPECT_NE(inner, fd);
      return fd;
    });
    EXPECT_NE(outer, handles.first());
    EXPECT_EQ(handles.read_alone([](int fd) { return fd; }), outer);
    EXPECT_EQ(testing::open_descriptors(), before + 3);
  }
  EXPECT_EQ(testing::open_descriptors(), before);
}

TEST_F(ReaderHandlesTest, AreTheFirstOneWhereNoMoreCanBeOpened) {
  SystemCalls calls = system_calls();
  calls.open = [](const char*, int, mode_t) {
    errno = EMFILE;
    return -1;
  };
  ReaderHandles handles(open_file(directory_ / "file"), O_RDONLY | O_CLOEXEC, calls);
  handles.open_another();
  EXPECT_EQ(handles.read_alone([](int fd) { return fd; }), handles.first());
}

}  // namespace
}  // namespace veturbo::storage
