#include "base/mapped_region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/align.h"
#include "base/unique_fd.h"
#include "testing/errors.h"
#include "testing/temporary_directory.h"

namespace veturbo {
namespace {

TEST(MappedRegion, OfNoBytesHasNoAddress) {
  EXPECT_EQ(MappedRegion::anonymous(0).data(), nullptr);
  EXPECT_EQ(MappedRegion::private_file(-1, 0).data(), nullptr);
}

TEST(MappedRegion, IsAlignedToHugePagesFromTheirSizeOn) {
  for (const uint64_t size : {kHugePageSize, kHugePageSize + 1, 3 * kHugePageSize - 1, uint64_t{64} << 20}) {
    const MappedRegion region = MappedRegion::anonymous(size);
    EXPECT_TRUE(is_aligned(region.data(), kHugePageSize)) << size;
    region.data()[0] = std::byte{1};
    region.data()[size - 1] = std::byte{2};  // both ends are there
  }
}

TEST(MappedRegion, DiscardsOnlyPagesThatLieWhollyInside) {
  const uint64_t page = page_size();
  MappedRegion region = MappedRegion::anonymous(8 * page);
  std::fill_n(region.data(), 8 * page, std::byte{7});
  region.discard(page + 1, 3 * page);  // pages 2 and 3 lie inside, 1 and 4 in part
  for (uint64_t i = 0; i < 8; ++i) {
    const std::byte expected = i == 2 || i == 3 ? std::byte{0} : std::byte{7};
    EXPECT_EQ(region.data()[i * page], expected) << i;
    EXPECT_EQ(region.data()[i * page + page - 1], expected) << i;
  }
}

// Which of the region's pages still have what was written to them.
std::vector<bool> kept(const MappedRegion& region) {
  std::vector<bool> kept;
  for (uint64_t at = 0; at < region.size(); at += page_size()) {
    kept.push_back(region.data()[at] == std::byte{7});
  }
  return kept;
}

TEST(MappedRegion, GivesALargeUsersPagesBackAtOnce) {
  const uint64_t page = page_size();
  const uint64_t large = uint64_t{1} << 20;
  for (const uint64_t size : {large, 3 * kHugePageSize}) {
    MappedRegion region = MappedRegion::anonymous(size + 4 * page);
    std::fill_n(region.data(), region.size(), std::byte{7});
    region.add_user(0, page + 1);
    region.add_user(page + 1, size);
    region.add_user(page + 1 + size, region.size() - size - page - 1);
    region.remove_user(page + 1, size);
    const std::vector<bool> pages = kept(region);
    EXPECT_EQ(std::count(pages.begin(), pages.end(), false), static_cast<std::ptrdiff_t>(size / page - 1));
    EXPECT_TRUE(pages[0] && pages[1] && pages[pages.size() - 3]);
  }
}

TEST(MappedRegion, GivesAHugePageBackWhenItsLastSmallUserEnds) {
  constexpr uint64_t kUsers = 32;
  constexpr uint64_t kSize = kHugePageSize / kUsers;
  MappedRegion region = MappedRegion::anonymous(2 * kHugePageSize + kSize);
  std::fill_n(region.data(), region.size(), std::byte{7});
  for (uint64_t i = 0; i <= 2 * kUsers; ++i) {
    region.add_user(i * kSize, kSize);
  }
  for (uint64_t i = 0; i < kUsers - 1; ++i) {
    region.remove_user(i * kSize, kSize);
  }
  region.remove_user(2 * kUsers * kSize, kSize);  // the only one of the last huge page, which is there in part
  const uint64_t pages_of_one = kSize / page_size();
  std::vector<bool> expected(2 * kUsers * pages_of_one, true);
  expected.resize(expected.size() + pages_of_one, false);
  EXPECT_EQ(kept(region), expected);
  region.remove_user((kUsers - 1) * kSize, kSize);
  std::fill_n(expected.begin(), kUsers * pages_of_one, false);
  EXPECT_EQ(kept(region), expected);
}

TEST(MappedRegion, KeepsAHugePageInWhichAnotherUserBeginsOrEnds) {
  const uint64_t half = kHugePageSize / 2;
  MappedRegion region = MappedRegion::anonymous(2 * kHugePageSize);
  std::fill_n(region.data(), region.size(), std::byte{7});
  const uint64_t small = page_size();
  region.add_user(0, small);
  region.add_user(half, kHugePageSize);  // the end of the first, the beginning of the second
  region.add_user(2 * kHugePageSize - small, small);
  region.remove_user(0, small);
  region.remove_user(2 * kHugePageSize - small, small);
  EXPECT_EQ(kept(region), std::vector<bool>(2 * kHugePageSize / page_size(), true));
  region.remove_user(half, kHugePageSize);
  EXPECT_EQ(kept(region), std::vector<bool>(2 * kHugePageSize / page_size(), false));
}

TEST(MappedRegion, IsEmptyInAChildProcessIfItIsToBe) {
  for (const uint64_t size : {uint64_t{5000}, 2 * kHugePageSize}) {
    MappedRegion region = MappedRegion::anonymous(size);
    std::fill_n(region.data(), size, std::byte{1});
    region.wipe_on_fork();
    const pid_t child = ::fork();
    ASSERT_NE(child, -1);
    if (child == 0) {
      ::_exit(std::count(region.data(), region.data() + size, std::byte{0}) == static_cast<ptrdiff_t>(size) ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << size;
    EXPECT_EQ(std::count(region.data(), region.data() + size, std::byte{1}), static_cast<ptrdiff_t>(size));
  }
}

TEST(MappedRegion, OfAFileKeepsWritesToItself) {
  const testing::TemporaryDirectory directory;
  testing::write_text(directory / "file", "before");
  const UniqueFd fd(::open((directory / "file").c_str(), O_RDONLY | O_CLOEXEC));
  MappedRegion region = MappedRegion::private_file(fd.get(), 6);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(region.data()), 6), "before");
  region.data()[0] = std::byte{'X'};
  EXPECT_EQ(testing::read_text(directory / "file"), "before");
}

TEST(MappedRegion, MovesItsMapping) {
  MappedRegion first = MappedRegion::anonymous(100);
  std::byte* const data = first.data();
  MappedRegion second = std::move(first);
  EXPECT_EQ(second.data(), data);
  MappedRegion third = MappedRegion::anonymous(10);
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size(), 100U);
}

TEST(MappedRegion, RefusesWhatNoMachineHas) {
  const Error error = testing::error_of([] { MappedRegion::anonymous(UINT64_MAX / 2); });
  EXPECT_EQ(error.kind(), ErrorKind::kOutOfMemory);
  EXPECT_EQ(testing::error_of([] { MappedRegion::anonymous(UINT64_MAX); }).kind(), ErrorKind::kOutOfMemory);
}

}  // namespace
}  // namespace veturbo
