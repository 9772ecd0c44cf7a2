#include "base/memory_limit.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "testing/temporary_directory.h"

namespace veturbo {
namespace {

class MemoryLimit : public ::testing::Test {
 protected:
  void write(const std::string& file, const std::string& text) {
    const std::filesystem::path path = root() / file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  std::filesystem::path root() const { return dir_.path(); }

 private:
  testing::TemporaryDirectory dir_;
};

TEST_F(MemoryLimit, IsNoneWhereNothingSaysSo) {
  EXPECT_EQ(memory_limit(root()), std::nullopt);
  write("proc/self/cgroup", "0::/\n");
  EXPECT_EQ(memory_limit(root()), std::nullopt);
  write("sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(memory_limit(root()), std::nullopt);
}

TEST_F(MemoryLimit, IsTheLeastOfAllGroupsAbove) {
  write("proc/self/cgroup", "0::/user/job/task\n");
  write("sys/fs/cgroup/user/job/task/memory.max", "max\n");
  write("sys/fs/cgroup/user/job/memory.max", "1000000\n");
  write("sys/fs/cgroup/user/memory.max", "3000000\n");
  EXPECT_EQ(memory_limit(root()), 1'000'000U);
}

TEST_F(MemoryLimit, IsReadFromVersion1AsWell) {
  write("proc/self/cgroup", "9:cpu,cpuacct:/cpu\n8:hugetlb,memory:/a/b\nnot a line\n");
  write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(memory_limit(root()), std::nullopt);
  write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n");
  EXPECT_EQ(memory_limit(root()), 4096U);
}

TEST_F(MemoryLimit, OfAContainerIsAtTheRootOfWhatItSees) {
  write("proc/self/cgroup", "0::/docker/0123abcd\n");
  write("sys/fs/cgroup/memory.max", "5000\n");
  EXPECT_EQ(memory_limit(root()), 5000U);
}

}  // namespace
}  // namespace veturbo
