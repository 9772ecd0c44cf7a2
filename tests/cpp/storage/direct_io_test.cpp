#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/align.h"
#include "base/mapped_region.h"
#include "base/unique_fd.h"
#include "storage/page_cache.h"
#include "storage/posix_readable_file.h"
#include "testing/errors.h"
#include "testing/memory_files.h"
#include "testing/temporary_directory.h"

namespace veturbo::storage {
namespace {

using testing::pattern;

class DirectIoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write("probe", pattern(4096));
    if (!PosixReadableFile::open("probe", directory_ / "probe", DirectIo::kAlways)->uses_direct_io()) {
      GTEST_SKIP() << "the file system of the working directory has no direct I/O";
    }
  }

  void write(const std::string& name, const std::vector<std::byte>& bytes) const {
    testing::write_text(directory_ / name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }

  testing::TemporaryDirectory directory_;
};

TEST_F(DirectIoTest, ReadsAnyRangeIntoAnyMemory) {
  for (const size_t file_size : {1, 4095, 4096, 4097, 20'000, 5'000'001}) {
    const std::vector<std::byte> content = pattern(file_size);
    write("file", content);
    const auto file = PosixReadableFile::open("file", directory_ / "file", DirectIo::kAlways);
    constexpr size_t before = 4096;
    const MappedRegion memory = MappedRegion::anonymous(before + file_size + 8192);
    for (const size_t offset : {0, 1, 511, 4096, 4097, 12'288}) {
      for (const size_t size : {1, 512, 4096, 8192, 8193, 4'990'000}) {
        for (const size_t shift : {0, 1, 64, 512}) {
          if (offset + size > file_size) {
            continue;
          }
          const std::span<std::byte> out(memory.data() + before + shift, size);
          out.data()[-1] = std::byte{0xEE};
          out.data()[size] = std::byte{0xEE};
          file->read_at(offset, out);
          ASSERT_EQ(std::memcmp(out.data(), content.data() + offset, size), 0) << file_size << ' ' << offset << ' ' << size;
          ASSERT_EQ(out.data()[-1], std::byte{0xEE});
          ASSERT_EQ(out.data()[size], std::byte{0xEE});
        }
      }
    }
    EXPECT_TRUE(file->uses_direct_io());
  }
}

#ifdef STATX_DIOALIGN
// A disk that takes memory at any multiple of four bytes, and how much it was asked to read outside of the reader's own memory.
class FineDisk {
 public:
  static inline std::span<const std::byte> target;
  static inline size_t elsewhere = 0;
  static inline int misaligned = 0;

  static SystemCalls calls() {
    SystemCalls calls = system_calls();
    calls.statx = [](int fd, const char* path, int flags, unsigned mask, struct statx* info) {
      const int result = ::statx(fd, path, flags, mask, info);
      info->stx_mask |= STATX_DIOALIGN;
      info->stx_dio_mem_align = 4;
      info->stx_dio_offset_align = 512;
      return result;
    };
    calls.preadv = read;
    return calls;
  }

 private:
  static ssize_t read(int fd, const iovec* parts, int count, off_t offset) {
    // The disk of this machine may be of another kind.
    std::vector<MappedRegion> aligned;
    std::vector<iovec> elsewhere_parts;
    misaligned += offset % 512 != 0;
    for (const iovec& part : std::span(parts, static_cast<size_t>(count))) {
      const auto* const begin = static_cast<const std::byte*>(part.iov_base);
      misaligned += !is_aligned(begin, 4) || part.iov_len % 512 != 0;
      elsewhere += begin >= target.data() && begin + part.iov_len <= target.data() + target.size() ? 0 : part.iov_len;
      aligned.push_back(MappedRegion::anonymous(part.iov_len));
      elsewhere_parts.push_back({aligned.back().data(), part.iov_len});
    }
    const ssize_t got = ::preadv(fd, elsewhere_parts.data(), count, offset);
    for (size_t i = 0; got > 0 && i < aligned.size(); ++i) {
      std::memcpy(parts[i].iov_base, aligned[i].data(), parts[i].iov_len);
    }
    return got;
  }
};

TEST_F(DirectIoTest, ReadsStraightIntoMemoryThatIsAlignedEnoughForTheDisk) {
  const std::vector<std::byte> content = pattern(4'000'001);
  write("file", content);
  const SystemCalls calls = FineDisk::calls();
  const auto file = PosixReadableFile::open("file", directory_ / "file", DirectIo::kAlways, calls);
  const MappedRegion memory = MappedRegion::anonymous(content.size() + 8192);
  struct Case {
    size_t offset;
    size_t size;
    size_t shift;  // of the memory
    size_t elsewhere;
  };
  const size_t rest = content.size() - 4096;
  for (const Case& c : {
           Case{0, 40'960, 4, 0},              // aligned at both ends
           Case{8, 3'000'000, 64, 2 * 4096},   // the block of either end
           Case{4100, rest - 4, 0, 2 * 4096},  // up to the end of the file
           Case{4096, rest, 1, 2 * 4096},      // odd memory: one whole block has no room behind its place
           Case{8192, 40'960, 3, 4096},        // the same, ending with the block
           Case{8, 16'000, 64, 4 * 4096},      // too little for three parts
       }) {
    FineDisk::target = {memory.data() + c.shift, c.size};
    FineDisk::elsewhere = 0;
    file->read_at(c.offset, {memory.data() + c.shift, c.size});
    EXPECT_EQ(std::memcmp(memory.data() + c.shift, content.data() + c.offset, c.size), 0) << c.offset << ' ' << c.size;
    EXPECT_EQ(FineDisk::elsewhere, c.elsewhere) << c.offset << ' ' << c.size;
  }
  EXPECT_EQ(FineDisk::misaligned, 0);
  EXPECT_TRUE(file->uses_direct_io());
}
#endif

TEST_F(DirectIoTest, FallsBackToThePageCacheWhereItIsRefused) {
  const std::vector<std::byte> content = pattern(100'000);
  write("file", content);
  SystemCalls calls = system_calls();
  static int refusal;
  static int refused;
  calls.preadv = [](int, const iovec*, int, off_t) -> ssize_t {
    ++refused;
    errno = refusal;
    return -1;
  };
  for (const int code : {EINVAL, EFAULT}) {  // the length or the memory
    refusal = code;
    refused = 0;
    const auto file = PosixReadableFile::open("file", directory_ / "file", DirectIo::kAlways, calls);
    std::vector<std::byte> out(100'000);
    file->read_at(0, out);
    file->read_at(0, out);
    EXPECT_EQ(out, content);
    EXPECT_EQ(refused, 1);
    EXPECT_FALSE(file->uses_direct_io());
  }
}

TEST_F(DirectIoTest, OpensThroughThePageCacheWhereTheFileSystemHasNone) {
  write("file", pattern(100));
  SystemCalls calls = system_calls();
  calls.open = [](const char* path, int flags, mode_t mode) {
    if (flags & O_DIRECT) {
      errno = EINVAL;
      return -1;
    }
    return ::open(path, flags, mode);
  };
  EXPECT_FALSE(PosixReadableFile::open("file", directory_ / "file", DirectIo::kAlways, calls)->uses_direct_io());
}

// Puts other bytes in a file's place when it is opened for direct reads.
class Replaced {
 public:
  static inline std::string with;

  static SystemCalls calls() {
    SystemCalls calls = system_calls();
    calls.open = [](const char* path, int flags, mode_t mode) {
      if ((flags & O_DIRECT) != 0) {
        std::filesystem::rename(with, path);
      }
      return ::open(path, flags, mode);
    };
    return calls;
  }
};

TEST_F(DirectIoTest, ReadsNothingOfAFileThatIsPutInItsPlaceMeanwhile) {
  const std::vector<std::byte> content = pattern(100'000);
  write("file", content);
  write("other", std::vector<std::byte>(content.size()));
  Replaced::with = directory_ / "other";
  const SystemCalls calls = Replaced::calls();
  const auto file = PosixReadableFile::open("file", directory_ / "file", DirectIo::kAlways, calls);
  EXPECT_FALSE(std::filesystem::exists(Replaced::with));
  std::vector<std::byte> out(content.size());
  file->read_at(0, out);
  EXPECT_EQ(out, content);
  EXPECT_FALSE(file->uses_direct_io());
}

TEST_F(DirectIoTest, GoesOnAfterShortAndInterruptedReads) {
  const std::vector<std::byte> content = pattern(200'000);
  write("file", content);
  SystemCalls calls = system_calls();
  static int count;
  static size_t most;
  count = 0;
  calls.preadv = [](int fd, const iovec* parts, int num_parts, off_t offset) -> ssize_t {
    if (++count % 3 == 0) {
      errno = EINTR;
      return -1;
    }
    std::vector<iovec> shortened;
    size_t left = most;
    for (const iovec& part : std::span(parts, static_cast<size_t>(num_parts))) {
      shortened.push_back({part.iov_base, std::min(left, part.iov_len)});
      left -= shortened.back().iov_len;
    }
    return ::preadv(fd, shortened.data(), num_parts, offset);
  };
  const auto file = PosixReadableFile::open("file", directory_ / "file", DirectIo::kAlways, calls);
  const MappedRegion memory = MappedRegion::anonymous(200'100);
  for (const size_t blocks : {1, 2, 47}) {
    most = blocks * 4096;
    for (const size_t offset : {0, 4096, 5000}) {
      for (const size_t shift : {0, 100}) {
        const std::span<std::byte> out(memory.data() + shift, content.size() - offset);
        file->read_at(offset, out);
        EXPECT_EQ(std::memcmp(out.data(), content.data() + offset, out.size()), 0) << blocks << ' ' << offset << ' ' << shift;
      }
    }
  }
  EXPECT_TRUE(file->uses_direct_io());
}

TEST_F(DirectIoTest, ReportsAFileThatWasCutShort) {
  write("file", pattern(100'000));
  const auto file = PosixReadableFile::open("file", directory_ / "file", DirectIo::kAlways);
  std::filesystem::resize_file(directory_ / "file", 50'000);
  std::vector<std::byte> out(100'000);
  const Error error = testing::error_of([&] { file->read_at(0, out); });
  EXPECT_EQ(error.cause(), "the file ends before its 100000 bytes: it was cut short while it was read");
  EXPECT_EQ(error.offset(), 50'000U);
}

TEST_F(DirectIoTest, ReportsADiskThatFails) {
  write("file", pattern(100'000));
  SystemCalls calls = system_calls();
  calls.preadv = [](int, const iovec*, int, off_t) -> ssize_t {
    errno = EIO;
    return -1;
  };
  const auto file = PosixReadableFile::open("file", directory_ / "file", DirectIo::kAlways, calls);
  std::vector<std::byte> out(10);
  EXPECT_STREQ(testing::error_of([&] { file->read_at(5000, out); }).what(), "file: read: Input/output error (at byte 4096)");
}

TEST_F(DirectIoTest, IsChosenForAColdFileOnly) {
  const std::vector<std::byte> content = pattern(size_t{20} << 20);
  write("file", content);
  EXPECT_FALSE(PosixReadableFile::open("file", directory_ / "file", DirectIo::kAuto)->uses_direct_io());
  const UniqueFd fd(::open((directory_ / "file").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_GT(cached_share(fd.get(), content.size()), 0.9);
  EXPECT_TRUE(is_page_cached(fd.get(), 8192));
  ASSERT_EQ(::fsync(fd.get()), 0);
  ASSERT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  if (cached_share(fd.get(), content.size()) > 0.1) {
    GTEST_SKIP() << "the system keeps the file in its cache";
  }
  EXPECT_FALSE(is_page_cached(fd.get(), 8192));
  EXPECT_TRUE(PosixReadableFile::open("file", directory_ / "file", DirectIo::kAuto)->uses_direct_io());
  EXPECT_FALSE(PosixReadableFile::open("file", directory_ / "file", DirectIo::kNever)->uses_direct_io());
}

}  // namespace
}  // namespace veturbo::storage
