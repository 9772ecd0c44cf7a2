// Files that are written past the page cache, and each way in which that can go wrong.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <thread>

#include "base/mapped_region.h"
#include "storage/encrypted_file.h"
#include "storage/posix_writable_file.h"
#include "testing/errors.h"
#include "testing/memory_files.h"
#include "testing/temporary_directory.h"

namespace veturbo::storage {
namespace {

using testing::error_of;
using testing::pattern;
using testing::read_text;

constexpr size_t kSize = (size_t{17} << 20) + 1234;

// What a direct pwrite does instead of writing: a table of functions holds no state, so it stands here.
std::function<ssize_t(int fd, const void* buffer, size_t count, off_t offset)> direct_pwrite;
std::atomic<int> direct_writes = 0;
std::atomic<int> cached_writes = 0;
bool refuses_open = false;

const SystemCalls& watched_calls() {
  static const SystemCalls kCalls = [] {
    SystemCalls calls = system_calls();
    calls.open = [](const char* path, int flags, mode_t mode) {
      if ((flags & O_DIRECT) != 0 && refuses_open) {
        errno = EINVAL;
        return -1;
      }
      return ::open(path, flags, mode);
    };
    calls.pwrite = [](int fd, const void* buffer, size_t count, off_t offset) -> ssize_t {
      if ((::fcntl(fd, F_GETFL) & O_DIRECT) == 0) {
        ++cached_writes;
        return ::pwrite(fd, buffer, count, offset);
      }
      ++direct_writes;
      return direct_pwrite ? direct_pwrite(fd, buffer, count, offset) : ::pwrite(fd, buffer, count, offset);
    };
    return calls;
  }();
  return kCalls;
}

ssize_t fail(int code) {
  errno = code;
  return -1;
}

class DirectWrite : public ::testing::Test {
 protected:
  void SetUp() override {
    direct_pwrite = nullptr;
    direct_writes = 0;
    cached_writes = 0;
    refuses_open = false;
    std::copy(content_.begin(), content_.end(), memory_.data());
    if (!make(kSize)->uses_direct_io()) {
      GTEST_SKIP() << "the file system of the working directory is not one of local disks, or has no direct I/O";
    }
    descriptors_ = testing::open_descriptors();
  }
  void TearDown() override {
    if (!IsSkipped()) {
      EXPECT_EQ(testing::open_descriptors(), descriptors_) << "a descriptor was left open";
    }
  }

  std::unique_ptr<PosixWritableFile> make(uint64_t size) const {
    return std::make_unique<PosixWritableFile>("uri", target_, size, watched_calls());
  }
  // From memory that is as aligned as the file.
  void write(WritableFile& file, size_t begin, size_t end) const { file.write_at(begin, {memory_.data() + begin, end - begin}); }
  void save_in_chunks(PosixWritableFile& file) const {
    for (size_t begin = 0; begin < kSize; begin += size_t{4} << 20) {
      write(file, begin, std::min(begin + (size_t{4} << 20), kSize));
    }
    file.commit();
  }
  bool is_saved() const {
    const std::string text = read_text(target_);
    return std::ranges::equal(std::as_bytes(std::span(text)), content_);
  }

  const std::vector<std::byte> content_ = pattern(kSize);
  const MappedRegion memory_ = MappedRegion::anonymous(kSize);
  testing::TemporaryDirectory directory_;
  std::string target_ = directory_ / "file";
  size_t descriptors_ = 0;
};

TEST_F(DirectWrite, WritesAllButTheLastBlockPastTheCache) {
  const auto file = make(kSize);
  EXPECT_EQ(file->traits().alignment, 4096U);
  save_in_chunks(*file);
  EXPECT_TRUE(is_saved());
  EXPECT_EQ(direct_writes, 5);
  EXPECT_EQ(cached_writes, 1);
  EXPECT_TRUE(file->warnings().empty());
}

TEST_F(DirectWrite, IsForLargeFilesOfKnownSize) {
  EXPECT_FALSE(make(0)->uses_direct_io());
  EXPECT_FALSE(make((uint64_t{16} << 20) - 1)->uses_direct_io());
  EXPECT_EQ(make(1)->traits().alignment, 1U);
}

TEST_F(DirectWrite, TakesAnyRangesFromAnyMemory) {
  std::mt19937 random(3);
  std::vector<size_t> cuts = {0, kSize};
  for (int i = 0; i < 60; ++i) {
    cuts.push_back(random() % kSize);
    cuts.push_back(random() % kSize / 4096 * 4096);
  }
  std::ranges::sort(cuts);
  const auto file = make(kSize);
  std::vector<std::thread> writers;
  for (size_t writer = 0; writer < 4; ++writer) {
    writers.emplace_back([&, writer] {
      for (size_t i = writer; i + 1 < cuts.size(); i += 4) {
        if (i % 3 == 0) {
          file->write_at(cuts[i], std::span(content_).subspan(cuts[i], cuts[i + 1] - cuts[i]));  // aligned to 16
        } else {
          write(*file, cuts[i], cuts[i + 1]);
        }
      }
    });
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  file->commit();
  EXPECT_TRUE(is_saved());
  EXPECT_GT(direct_writes, 0);
  EXPECT_TRUE(file->uses_direct_io());
}

TEST_F(DirectWrite, FallsBackWhereTheFileSystemHasNone) {
  refuses_open = true;
  const auto file = make(kSize);
  EXPECT_FALSE(file->uses_direct_io());
  EXPECT_EQ(file->traits().alignment, 1U);
  save_in_chunks(*file);
  EXPECT_TRUE(is_saved());
  EXPECT_EQ(direct_writes, 0);
}

TEST_F(DirectWrite, FallsBackOnceWhereAWriteIsRefused) {
  direct_pwrite = [](int, const void*, size_t, off_t) { return fail(EINVAL); };
  const auto file = make(kSize);
  save_in_chunks(*file);
  EXPECT_TRUE(is_saved());
  EXPECT_EQ(direct_writes, 1);
  EXPECT_FALSE(file->uses_direct_io());
}

TEST_F(DirectWrite, FallsBackWhereLessThanABlockIsWritten) {
  direct_pwrite = [](int fd, const void* buffer, size_t count, off_t offset) -> ssize_t {
    return offset < 1'000'000 ? ::pwrite(fd, buffer, count, offset) : 100;
  };
  const auto file = make(kSize);
  save_in_chunks(*file);
  EXPECT_TRUE(is_saved());
  EXPECT_FALSE(file->uses_direct_io());
}

TEST_F(DirectWrite, GoesOnAfterShortAndInterruptedWrites) {
  static int count;
  count = 0;
  direct_pwrite = [](int fd, const void* buffer, size_t size, off_t offset) -> ssize_t {
    if (++count % 3 == 0) {
      return fail(EINTR);
    }
    // Every other time what is written ends within a block: the kernel wrote the block whole, or not at all.
    const ssize_t put = ::pwrite(fd, buffer, std::min<size_t>(size, size_t{1} << 20), offset);
    return put > 4096 && count % 2 == 0 ? put - 1000 : put;
  };
  const auto file = make(kSize);
  save_in_chunks(*file);
  EXPECT_TRUE(is_saved());
  EXPECT_TRUE(file->uses_direct_io());
}

TEST_F(DirectWrite, FailsWithTheOffsetAndLeavesTheOldFile) {
  testing::write_text(target_, "old content");
  for (const int code : {ENOSPC, EIO}) {
    direct_pwrite = [code](int fd, const void* buffer, size_t count, off_t offset) {
      return offset < 4 << 20 ? ::pwrite(fd, buffer, std::min<size_t>(count, 8192), offset) : fail(code);
    };
    const Error error = error_of([&] { save_in_chunks(*make(kSize)); });
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(error.file(), "uri");
    EXPECT_EQ(error.offset(), uint64_t{4} << 20);
    EXPECT_EQ(read_text(target_), "old content");
    EXPECT_EQ(directory_.names(), std::set<std::string>{"file"});
  }
}

TEST_F(DirectWrite, IsForEncryptedFilesToo) {
  const std::shared_ptr<const crypto::Keystream> keystream =
      crypto::make_keystream(crypto::make_data_key(Secret(pattern(16, 5)), pattern(16, 6), "key", "iv"));
  const std::string header(4096, 'h');
  EncryptedFile file(make(header.size() + kSize), header, keystream, "");
  for (const auto& [begin, end] : {std::pair<size_t, size_t>{0, 8 << 20}, {8 << 20, kSize}}) {
    file.write_at(begin, std::span(content_).subspan(begin, end - begin));
  }
  file.commit();
  EXPECT_GE(direct_writes, 9) << "of 2 MiB each";
  EXPECT_EQ(direct_writes + cached_writes, 11) << "and the header, which may lie aligned, and the last block";
  std::string text = read_text(target_).substr(header.size());
  keystream->apply(0, std::as_writable_bytes(std::span(text)));
  EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(text)), content_));
}

}  // namespace
}  // namespace veturbo::storage
