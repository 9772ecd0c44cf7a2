#include "base/mapped_region.h"

#include <fcntl.h>
#include <gtest/gtest.h>

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
