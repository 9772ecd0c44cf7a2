#include "storage/posix_readable_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/align.h"
#include "base/concat.h"
#include "base/cpu_count.h"
#include "base/error.h"
#include "storage/file_system.h"
#include "storage/page_cache.h"

namespace veturbo::storage {

namespace {

// The strictest alignment that a local file system asks for; statx() would tell the loosest, which gains nothing here.
constexpr uint64_t kDirectAlignment = 4096;
constexpr uint64_t kBounceBytes = uint64_t{4} << 20;

constexpr uint64_t kCachedChunkBytes = uint64_t{4} << 20;
constexpr uint64_t kDirectChunkBytes = uint64_t{8} << 20;
constexpr uint64_t kCachedPieceBytes = uint64_t{128} << 10;  // fits the second level of the cache with room for the source
constexpr uint64_t kDirectPieceBytes = uint64_t{2} << 20;    // the third: a disk is slow in smaller reads
constexpr uint64_t kInlineBytes = uint64_t{4} << 20;
constexpr int kMaxCachedReads = 16;  // memory bandwidth is used up by then
constexpr int kMinDirectReads = 4;   // a disk wants several requests at once, also where cores are few

// Below this, opening the file a second time and asking for its pages costs more than direct I/O could gain.
constexpr uint64_t kMinColdBytes = uint64_t{16} << 20;
// Direct reads of a cold disk are about twice as fast as cached ones, cached reads of cached pages four times as fast again:
// with more than this share cached, the page cache wins.
constexpr double kMaxCachedShare = 0.4;

bool direct_io_pays(int fd, uint64_t size) {
  return size >= kMinColdBytes && is_local_disk_file_system(fd) && cached_share(fd, size) < kMaxCachedShare;
}

Error ended_early(uint64_t offset, uint64_t size) {
  return Error(ErrorKind::kIo, concat("the file ends before its ", size, " bytes: it was cut short while it was read"), EIO)
      .at_offset(offset);
}

}  // namespace

std::unique_ptr<PosixReadableFile> PosixReadableFile::open(std::string uri, const std::string& path, DirectIo direct_io,
                                                           const SystemCalls& calls) {
  try {
    // O_NONBLOCK only matters for what is refused below: opening a FIFO would wait for its writer.
    constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    UniqueFd fd(uninterrupted([&] { return calls.open(path.c_str(), kFlags, 0); }));
    if (!fd) {
      throw Error::from_errno(errno, "");
    }
    struct stat info = {};
    if (::fstat(fd.get(), &info) != 0) {
      throw Error::from_errno(errno, "stat");
    }
    if (S_ISDIR(info.st_mode)) {
      throw Error::from_errno(EISDIR, "");
    }
    if (!S_ISREG(info.st_mode)) {
      throw Error(ErrorKind::kIo, "not a regular file", EINVAL);
    }
    const uint64_t size = static_cast<uint64_t>(info.st_size);
    UniqueFd direct_fd;
    if (direct_io == DirectIo::kAlways || (direct_io == DirectIo::kAuto && direct_io_pays(fd.get(), size))) {
      // refused: read through the cache
      direct_fd = UniqueFd(uninterrupted([&] { return calls.open(path.c_str(), kFlags | O_DIRECT, 0); }));
      struct stat again = {};
      if (direct_fd && (::fstat(direct_fd.get(), &again) != 0 || again.st_ino != info.st_ino || again.st_dev != info.st_dev)) {
        direct_fd.reset();  // the name was given to another file in between
      }
    }
    return std::unique_ptr<PosixReadableFile>(new PosixReadableFile(uri, size, std::move(fd), std::move(direct_fd), calls));
  } catch (Error& error) {
    throw error.in_file(uri);
  }
}

PosixReadableFile::PosixReadableFile(std::string uri, uint64_t size, UniqueFd fd, UniqueFd direct_fd, const SystemCalls& calls)
    : ReadableFile(std::move(uri), size),
      calls_(calls),
      fd_(std::move(fd)),
      direct_fd_(std::move(direct_fd)),
      direct_(static_cast<bool>(direct_fd_)) {}

ReadTraits PosixReadableFile::traits() const {
  const int cpus = std::min(available_cpus(), kMaxCachedReads);
  if (uses_direct_io()) {
    return {.chunk_size = kDirectChunkBytes,
            .piece_size = kDirectPieceBytes,
            .inline_bytes = kInlineBytes,
            .parallelism = std::max(cpus, kMinDirectReads),
            .mappable = true};
  }
  return {.chunk_size = kCachedChunkBytes,
          .piece_size = kCachedPieceBytes,
          .inline_bytes = kInlineBytes,
          .parallelism = cpus,
          .mappable = true};
}

MappedRegion PosixReadableFile::map() const {
  try {
    return MappedRegion::private_file(fd_.get(), size());
  } catch (Error& error) {
    throw error.in_file(uri());
  }
}

void PosixReadableFile::do_read_at(uint64_t offset, std::span<std::byte> out) {
  if (uses_direct_io()) {
    if (read_direct(offset, out)) {
      return;
    }
    direct_.store(false, std::memory_order_relaxed);
  }
  read_cached(offset, out);
}

void PosixReadableFile::read_cached(uint64_t offset, std::span<std::byte> out) {
  const size_t got = read_fully(calls_, fd_.get(), offset, out);
  if (got < out.size()) {
    throw ended_early(offset + got, size());
  }
}

bool PosixReadableFile::read_direct(uint64_t offset, std::span<std::byte> out) {
  MappedRegion bounce;
  const auto read = [&](uint64_t at, std::span<std::byte> into) -> ssize_t {
    const ssize_t got =
        uninterrupted([&] { return calls_.pread(direct_fd_.get(), into.data(), into.size(), static_cast<off_t>(at)); });
    if (got < 0 && errno != EINVAL) {
      throw Error::from_errno(errno, "read").at_offset(at);
    }
    return got;
  };
  bool accepted = true;
  while (accepted && !out.empty()) {
    const uint64_t begin = align_down(offset, kDirectAlignment);
    const uint64_t whole = align_down(out.size(), kDirectAlignment);
    size_t moved = 0;
    if (offset == begin && whole > 0 && is_aligned(out.data(), kDirectAlignment)) {
      const ssize_t got = read(offset, out.first(std::min(whole, kDirectChunkBytes)));
      accepted = got >= 0;
      moved = accepted ? static_cast<size_t>(got) : 0;
    } else {
      if (bounce.size() == 0) {
        bounce = take_bounce_buffer();
      }
      const uint64_t wanted = std::min(kBounceBytes, align_up(offset + out.size(), kDirectAlignment) - begin);
      const ssize_t got = read(begin, {bounce.data(), wanted});
      accepted = got >= 0;
      const uint64_t skip = offset - begin;
      if (accepted && static_cast<uint64_t>(got) > skip) {
        moved = std::min<uint64_t>(out.size(), static_cast<uint64_t>(got) - skip);
        std::memcpy(out.data(), bounce.data() + skip, moved);
      }
    }
    // Nothing of what was wanted: the file has become shorter, or the file system reads less than a block at a time. A cached
    // read tells which.
    accepted = accepted && moved > 0;
    offset += moved;
    out = out.subspan(moved);
  }
  if (bounce.size() > 0) {
    give_bounce_buffer(std::move(bounce));
  }
  return accepted;
}

MappedRegion PosixReadableFile::take_bounce_buffer() {
  {
    std::lock_guard lock(mutex_);
    if (!bounce_buffers_.empty()) {
      MappedRegion buffer = std::move(bounce_buffers_.back());
      bounce_buffers_.pop_back();
      return buffer;
    }
  }
  return MappedRegion::anonymous(kBounceBytes);
}

void PosixReadableFile::give_bounce_buffer(MappedRegion buffer) {
  std::lock_guard lock(mutex_);
  bounce_buffers_.push_back(std::move(buffer));
}

}  // namespace veturbo::storage
