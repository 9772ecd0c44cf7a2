#include "storage/posix_readable_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/align.h"
#include "base/concat.h"
#include "base/cpu_count.h"
#include "base/error.h"
#include "storage/direct_read.h"
#include "storage/page_cache.h"
#include "storage/read_timer.h"

namespace veturbo::storage {

namespace {

// O_NONBLOCK only matters for what open() refuses: opening a FIFO would wait for its writer.
constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

constexpr uint64_t kCachedChunkBytes = uint64_t{4} << 20;
constexpr uint64_t kDirectChunkBytes = uint64_t{4} << 20;
constexpr uint64_t kCachedPieceBytes = uint64_t{128} << 10;  // fits the second level of the cache with room for the source
constexpr uint64_t kDirectPieceBytes = uint64_t{2} << 20;    // the third: a disk is slow in smaller reads
constexpr uint64_t kInlineBytes = uint64_t{4} << 20;
// What is read over: as much as is copied, sent by a disk or sent from far in the time of a call.
constexpr uint64_t kCachedGapBytes = uint64_t{4} << 10;
constexpr uint64_t kDirectGapBytes = uint64_t{64} << 10;
constexpr uint64_t kFarGapBytes = uint64_t{256} << 10;
constexpr int kMaxCachedReads = 16;  // memory bandwidth is used up by then
// A disk wants many requests at once, also where cores are few. Reads that begin together end together, and the disk waits until
// a worker is done with its chunk and asks for another: the more there are, and the smaller, the less of the time that is.
constexpr int kMinDirectReads = 32;

// Below this, opening the file a second time and asking for its pages costs more than direct I/O could gain.
constexpr uint64_t kMinColdBytes = uint64_t{16} << 20;
// Direct reads of a cold disk are about twice as fast as cached ones, cached reads of cached pages four times as fast again:
// with more than this share cached, the page cache wins.
constexpr double kMaxCachedShare = 0.4;

// Far away, a call takes milliseconds before its first byte comes, and one reader is slow: many, and chunks so small that each
// reader has some.
constexpr int kFarReads = 32;
constexpr int kMinRemoteReads = 8;  // where nothing has been measured yet
constexpr uint64_t kMinFarChunkBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxFarChunkBytes = uint64_t{4} << 20;
constexpr uint64_t kFarChunksPerReader = 2;
// What the kernel begins to read in answer to one POSIX_FADV_WILLNEED, where nobody has changed that (see ReaderHandles); of more
// it forgets the rest.
constexpr uint64_t kReadAheadBytes = uint64_t{256} << 10;
// How long the first byte of a page is waited for: Ctrl-C waits with it, and what takes longer is far in any case.
constexpr std::chrono::milliseconds kMostWait(200);
// From this share on a file is taken for one that is all there. What is missing is then noticed by the reads that wait for it.
constexpr double kMinCachedShare = 0.9;

bool direct_io_pays(const FileSystem& file_system, int fd, uint64_t size) {
  return size >= kMinColdBytes && file_system.kind == FileSystem::Kind::kLocalDisk && cached_share(fd, size) < kMaxCachedShare;
}

// Has the kernel begin to read all of it.
void ask_for(int fd, uint64_t offset, uint64_t size) {
  for (uint64_t done = 0; done < size; done += kReadAheadBytes) {
    ::posix_fadvise(fd, static_cast<off_t>(offset + done), static_cast<off_t>(std::min(size - done, kReadAheadBytes)),
                    POSIX_FADV_WILLNEED);
  }
}

// NVMe drives take memory at any multiple of four bytes. Others want whole sectors, and some virtual ones that take those are a
// tenth faster with whole blocks. Linux tells since 6.1.
uint64_t direct_memory_alignment(const SystemCalls& calls, int fd) {
#ifdef STATX_DIOALIGN
  constexpr uint32_t kSectorSize = 512;
  struct statx info = {};
  if (calls.statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN) != 0 &&
      std::has_single_bit(info.stx_dio_mem_align) && info.stx_dio_mem_align < kSectorSize) {
    return info.stx_dio_mem_align;
  }
#endif
  return kDirectBlockBytes;
}

// What a page's first byte says of the way to it.
enum class Distance { kNear, kFar, kUnknown };

// Asks for that byte from a thread of its own: who asks must not wait with it for a server that does not answer.
Distance measure(int fd, uint64_t offset) {
  struct Measurement {
    UniqueFd fd;
    std::mutex mutex;
    std::condition_variable measured;
    std::optional<Distance> distance;
  };
  const auto measurement = std::make_shared<Measurement>();
  measurement->fd = UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  const auto run = [measurement, offset] {
    std::byte byte;
    const ReadTimer timer;
    const bool got = ::pread(measurement->fd.get(), &byte, 1, static_cast<off_t>(offset)) == 1;
    std::lock_guard lock(measurement->mutex);
    measurement->distance = got && timer.waited(1) ? Distance::kFar : Distance::kNear;
    measurement->measured.notify_all();
  };
  try {
    std::thread(run).detach();
  } catch (const std::system_error&) {  // there are no more threads
    run();
  }
  std::unique_lock lock(measurement->mutex);
  measurement->measured.wait_for(lock, kMostWait, [&] { return measurement->distance.has_value(); });
  return measurement->distance.value_or(Distance::kUnknown);
}

Error ended_early(uint64_t offset, uint64_t size) {
  return Error(ErrorKind::kIo, concat("the file ends before its ", size, " bytes: it was cut short while it was read"), EIO)
      .at_offset(offset);
}

}  // namespace

std::unique_ptr<PosixReadableFile> PosixReadableFile::open(const std::string& uri, const std::string& path, DirectIo direct_io,
                                                           const SystemCalls& calls) {
  try {
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
    std::unique_ptr<PosixReadableFile> file(new PosixReadableFile(uri, size, std::move(fd), direct_io, calls));
    if (direct_io == DirectIo::kAlways ||
        (direct_io == DirectIo::kAuto && direct_io_pays(file->file_system_, file->handles_.first(), size))) {
      // refused: read through the cache
      UniqueFd direct_fd(uninterrupted([&] { return calls.open(path.c_str(), kFlags | O_DIRECT, 0); }));
      struct stat again = {};
      // Unless the name was given to another file in between.
      if (direct_fd && ::fstat(direct_fd.get(), &again) == 0 && again.st_ino == info.st_ino && again.st_dev == info.st_dev) {
        file->use_direct_io(std::move(direct_fd));
      }
    }
    return file;
  } catch (Error& error) {
    throw error.in_file(uri);
  }
}

PosixReadableFile::PosixReadableFile(std::string uri, uint64_t size, UniqueFd fd, DirectIo direct_io, const SystemCalls& calls)
    : ReadableFile(std::move(uri), size),
      calls_(calls),
      file_system_(file_system_of(fd.get())),
      direct_io_(direct_io),
      cpus_(std::min(available_cpus(), kMaxCachedReads)),
      handles_(std::move(fd), kFlags, calls) {}

ReadTraits PosixReadableFile::traits() const {
  if (!is_local(file_system_)) {
    std::call_once(distance_asked_, [this] { find_distance(); });
  }
  if (is_far()) {
    const uint64_t chunk =
        std::clamp(std::bit_ceil(size() / (kFarReads * kFarChunksPerReader)), kMinFarChunkBytes, kMaxFarChunkBytes);
    return {.chunk_size = chunk,
            .piece_size = chunk,
            .inline_bytes = 0,
            .max_gap = kFarGapBytes,
            .parallelism = kFarReads,
            .mappable = true};
  }
  if (uses_direct_io()) {
    return {.chunk_size = kDirectChunkBytes,
            .piece_size = kDirectPieceBytes,
            .inline_bytes = kInlineBytes,
            .max_gap = kDirectGapBytes,
            .parallelism = std::max(cpus_, kMinDirectReads),
            .mappable = true};
  }
  return {.chunk_size = kCachedChunkBytes,
          .piece_size = kCachedPieceBytes,
          .inline_bytes = kInlineBytes,
          .max_gap = is_cold_and_remote() ? kFarGapBytes : kCachedGapBytes,
          .parallelism = is_cold_and_remote() ? std::max(cpus_, kMinRemoteReads) : cpus_,
          .mappable = true};
}

// Sees whether the file is in the page cache, and else whether it is far.
void PosixReadableFile::find_distance() const {
  const int fd = handles_.first();
  cached_ = cached_share(fd, size()) >= kMinCachedShare;
  uint64_t page_read = 0;
  bool is_silent = false;
  if (!is_far()) {  // by what has been read before
    // The middle: the beginning and the end of a file have mostly been looked at. It is read even if it is said to be cached: of
    // a file that the process may not write, the kernel says that of every page.
    page_read = align_down(size() / 2, page_size());
    const Distance distance = measure(fd, page_read);
    if (distance == Distance::kNear) {
      return;
    }
    far_.store(true, std::memory_order_relaxed);
    is_silent = distance == Distance::kUnknown;
  }
  cached_ = false;
  if (direct_io_ != DirectIo::kAuto || is_silent) {  // opening it again would only wait, too
    return;
  }
  // Many file systems in user space drop what the page cache has of a file whenever it is opened. With readers that open it while
  // others read, much would be fetched twice; and nothing would be kept for later.
  handles_.open_another();
  if (!is_page_cached(fd, page_read)) {
    use_direct_io(handles_.open_again(O_DIRECT));
  }
}

void PosixReadableFile::use_direct_io(UniqueFd fd) const {
  if (fd) {
    memory_alignment_ = direct_memory_alignment(calls_, fd.get());
    direct_handles_ = std::make_unique<ReaderHandles>(std::move(fd), kFlags | O_DIRECT, calls_);
    direct_.store(true, std::memory_order_release);
  }
}

MappedRegion PosixReadableFile::map() const {
  try {
    return MappedRegion::private_file(handles_.first(), size());
  } catch (Error& error) {
    throw error.in_file(uri());
  }
}

std::string PosixReadableFile::too_far_to_map() const {
  traits();
  return is_far() || is_cold_and_remote() ? std::string(file_system_.name) : "";
}

void PosixReadableFile::do_read_at(uint64_t offset, std::span<std::byte> out) {
  if (is_far() || is_local(file_system_)) {
    read(offset, out);
    return;
  }
  const ReadTimer timer;
  read(offset, out);
  if (timer.waited(out.size())) {
    far_.store(true, std::memory_order_relaxed);
  }
}

void PosixReadableFile::read(uint64_t offset, std::span<std::byte> out) {
  if (uses_direct_io()) {
    const auto read = [&](int fd) { return read_direct(fd, offset, out); };
    if (is_far() ? direct_handles_->read_alone(read) : read(direct_handles_->first())) {
      return;
    }
    direct_.store(false, std::memory_order_relaxed);
  }
  read_cached(offset, out);
}

void PosixReadableFile::read_cached(uint64_t offset, std::span<std::byte> out) {
  const auto read = [&](int fd) {
    if (is_far() && out.size() > kReadAheadBytes) {  // who reads little at a time does best with what the kernel reads ahead
      ask_for(fd, offset, out.size());
    }
    return read_fully(calls_, fd, offset, out);
  };
  const size_t got = is_far() ? handles_.read_alone(read) : read(handles_.first());
  if (got < out.size()) {
    throw ended_early(offset + got, size());
  }
}

bool PosixReadableFile::read_direct(int fd, uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const uint64_t most = kDirectChunkBytes - offset % kDirectBlockBytes;
    DirectRead read(offset, out.first(std::min<uint64_t>(out.size(), most)), memory_alignment_);
    const std::span<const iovec> parts = read.parts();
    const ssize_t got = uninterrupted(
        [&] { return calls_.preadv(fd, parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(read.offset())); });
    // EFAULT: some drivers' memory can be written to, but not by a disk.
    if (got < 0 && errno != EINVAL && errno != EFAULT) {
      throw Error::from_errno(errno, "read").at_offset(read.offset());
    }
    const size_t moved = got < 0 ? 0 : read.put_in_place(static_cast<size_t>(got));
    // Nothing of what was wanted: the file has become shorter, or the file system reads less than a block at a time. A cached
    // read tells which.
    if (moved == 0) {
      return false;
    }
    offset += moved;
    out = out.subspan(moved);
  }
  return true;
}

}  // namespace veturbo::storage
