#include "storage/posix_writable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <random>
#include <utility>
#include <vector>

#include "base/align.h"
#include "base/concat.h"
#include "base/cpu_count.h"
#include "base/error.h"
#include "storage/direct_read.h"
#include "storage/file_system.h"

namespace veturbo::storage {

namespace {

constexpr uint64_t kChunkBytes = uint64_t{8} << 20;
constexpr uint64_t kInlineBytes = uint64_t{4} << 20;
constexpr int kMaxWrites = 4;

constexpr uint64_t kDirectChunkBytes = uint64_t{4} << 20;
// A disk wants many writes at once, also where cores are few and busy with copying. Each may take a buffer of a chunk: 3 % of the
// file, or 16 MiB.
constexpr int kMinDirectWrites = 4;
constexpr int kMaxDirectWrites = 16;
constexpr uint64_t kBytesPerDirectWrite = uint64_t{128} << 20;
// What is smaller the page cache takes in no time, and whoever saved it is likely to read it next.
constexpr uint64_t kMinDirectBytes = uint64_t{16} << 20;

// "This file system does not do that", as opposed to "this went wrong".
bool means_unsupported(int code) {
  return code == EOPNOTSUPP || code == ENOSYS || code == EINVAL || code == EPERM || code == ENODEV || code == EXDEV;
}

// A save to a symbolic link replaces what the link points to, as writing through it would.
std::string follow_links(std::string path) {
  constexpr int kMaxLinks = 40;  // as the kernel
  for (int i = 0; i < kMaxLinks; ++i) {
    std::error_code error;
    const std::filesystem::path target = std::filesystem::read_symlink(path, error);
    if (error) {
      return path;  // not a link
    }
    path = target.is_absolute() ? target.string() : (std::filesystem::path(path).parent_path() / target).string();
  }
  throw Error::from_errno(ELOOP, "");
}

constexpr std::string_view kSiblingEnd = ".veturboio-tmp";
constexpr std::string_view kDigits = "0123456789abcdef";
constexpr size_t kTokenDigits = 16;

// What the names of all files that are written beside a target begin with. Before their end comes a token of so many digits.
std::string sibling_begin(const std::string& target) {
  constexpr size_t kMaxStem = 200;  // leaves room for the rest within the 255 bytes of a name
  return concat(".", std::filesystem::path(target).filename().string().substr(0, kMaxStem), ".");
}

std::string sibling_name(const std::string& target) {
  std::random_device random;
  std::string token;
  for (size_t i = 0; i < kTokenDigits; ++i) {
    token += kDigits[random() % kDigits.size()];
  }
  return concat(sibling_begin(target), token, kSiblingEnd);
}

bool is_sibling_name(std::string_view name, std::string_view begin) {
  return name.size() == begin.size() + kTokenDigits + kSiblingEnd.size() && name.starts_with(begin) &&
         name.ends_with(kSiblingEnd) &&
         name.substr(begin.size(), kTokenDigits).find_first_not_of(kDigits) == std::string_view::npos;
}

}  // namespace

PosixWritableFile::PosixWritableFile(std::string uri, const std::string& path, uint64_t size, const SystemCalls& calls)
    : WritableFile(std::move(uri)), calls_(calls) {
  try {
    target_ = follow_links(path);
    const std::filesystem::path name = std::filesystem::path(target_).filename();
    if (name.empty()) {
      throw Error::from_errno(target_.empty() ? ENOENT : EISDIR, "");
    }
    directory_ = std::filesystem::path(target_).parent_path().string();
    if (directory_.empty()) {
      directory_ = ".";
    }
    // The links on the way, too, are followed once: when one of them points elsewhere later, all stays where it began.
    std::error_code not_resolved;
    if (const auto resolved = std::filesystem::canonical(directory_, not_resolved); !not_resolved) {
      directory_ = resolved.string();
      target_ = (resolved / name).string();
    }
    struct stat info = {};
    if (::stat(target_.c_str(), &info) == 0) {
      if (S_ISDIR(info.st_mode)) {
        throw Error::from_errno(EISDIR, "");
      }
      if (!S_ISREG(info.st_mode)) {
        throw Error(ErrorKind::kIo, "not a regular file: saving would replace it", EINVAL);
      }
      // rename() asks only for the directory's permission; a file that was made read-only is meant to stay as it is.
      if (::faccessat(AT_FDCWD, target_.c_str(), W_OK, AT_EACCESS) != 0) {
        throw Error::from_errno(errno, "");
      }
      target_exists_ = true;
      mode_ = info.st_mode & 0777;
    } else if (errno != ENOENT) {
      throw Error::from_errno(errno, "");
    }
    create_sibling();
    remove_all_abandoned();  // before space is asked for, of which they may have taken much
    set_size(size);
    open_direct(size);
  } catch (Error& error) {
    remove_sibling();
    throw error.in_file(this->uri());
  } catch (...) {  // there is no memory
    remove_sibling();
    throw;
  }
}

PosixWritableFile::~PosixWritableFile() {
  remove_sibling();
}

// Also for the constructor: the destructor does not run for an object that was never finished.
void PosixWritableFile::remove_sibling() const {
  if (!sibling_.empty()) {
    calls_.unlink(sibling_.c_str());
  }
}

WriteTraits PosixWritableFile::traits() const {
  if (uses_direct_io()) {
    return {.chunk_size = kDirectChunkBytes,
            .inline_bytes = kInlineBytes,
            .parallelism = direct_writes_,
            .run_size = kAnyOrder,
            .alignment = kDirectBlockBytes};
  }
  // Into memory, two writers fight over the page allocator and are slower than one.
  const bool one = in_order_ || is_memory_file_system(fd_.get());
  return {.chunk_size = kChunkBytes,
          .inline_bytes = kInlineBytes,
          .parallelism = one ? 1 : std::clamp(available_cpus(), 2, kMaxWrites),
          .run_size = in_order_ ? kInOrder : kAnyOrder};
}

void PosixWritableFile::create_sibling() {
  constexpr int kTries = 16;
  for (int i = 0; i < kTries && !fd_; ++i) {
    const std::string path = (std::filesystem::path(directory_) / sibling_name(target_)).string();
    // A new file gets 0666 less the umask, as from open(); one that replaces another is private until it has that one's mode.
    fd_ = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, target_exists_ ? 0600 : mode_);
    if (fd_) {
      sibling_ = path;
      if (!lock_sibling()) {
        calls_.unlink(std::exchange(sibling_, {}).c_str());
        fd_.reset();
      }
    } else if (errno != EEXIST) {
      const int code = errno;
      throw code == ENOENT ? Error(ErrorKind::kIo, concat("there is no directory ", directory_), ENOENT)
                           : Error::from_errno(code, concat("cannot create a file in ", directory_));
    }
  }
  if (!fd_) {
    throw Error::from_errno(EEXIST, concat("cannot create a file in ", directory_));
  }
  if (target_exists_ && uninterrupted([&] { return calls_.fchmod(fd_.get(), mode_); }) != 0) {
    warn("this file system does not set modes: the file's permissions are not those of the one it replaces");
  }
}

// False: somebody took the file for abandoned before it was locked.
bool PosixWritableFile::lock_sibling() {
  if (!is_local(file_system_of(fd_.get()))) {
    return true;
  }
  if (uninterrupted([&] { return calls_.flock(fd_.get(), LOCK_EX | LOCK_NB); }) != 0) {
    return errno != EWOULDBLOCK;  // no locks here: nobody finds that nobody has one
  }
  lock_ = UniqueFd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!lock_) {
    throw Error::from_errno(errno, concat("cannot create a file in ", directory_));
  }
  struct stat info = {};
  return ::fstat(fd_.get(), &info) == 0 && info.st_nlink > 0;
}

// Whoever locks the file is the only one to act on it: its writer, who then sees whether it still has its name, or another, who
// then removes it.
void PosixWritableFile::remove_abandoned(const std::string& path) const {
  const UniqueFd fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
  struct stat info = {};
  if (fd && ::fstat(fd.get(), &info) == 0 && S_ISREG(info.st_mode) &&
      uninterrupted([&] { return calls_.flock(fd.get(), LOCK_EX | LOCK_NB); }) == 0) {
    calls_.unlink(path.c_str());
  }
}

void PosixWritableFile::remove_all_abandoned() const {
  if (!lock_) {
    return;
  }
  const std::string begin = sibling_begin(target_);
  std::error_code error;  // of a directory that cannot be listed, nothing is removed
  for (std::filesystem::directory_iterator entry(directory_, error), end; !error && entry != end; entry.increment(error)) {
    const std::string path = entry->path().string();
    if (path != sibling_ && is_sibling_name(entry->path().filename().string(), begin)) {
      remove_abandoned(path);
    }
  }
}

void PosixWritableFile::set_size(uint64_t size) {
  if (size == 0) {
    return;
  }
  const auto attempt = [&](auto&& call) {
    const int result = uninterrupted(call);
    if (result != 0 && !means_unsupported(errno)) {
      throw Error::from_errno(errno, concat("cannot reserve ", size, " bytes"));
    }
    return result == 0;
  };
  const off_t length = static_cast<off_t>(size);
  // Reserving the space first reports a full disk before anything is written and keeps the file in one piece. In memory it only
  // costs: each page is looked for twice.
  const bool reserve = !is_memory_file_system(fd_.get());
  if (!(reserve && attempt([&] { return calls_.fallocate(fd_.get(), 0, 0, length); })) &&
      !attempt([&] { return calls_.ftruncate(fd_.get(), length); })) {
    in_order_ = true;
    warn("this file system does not let a file's size be set beforehand: it is written in order, without parallel writes");
  }
}

void PosixWritableFile::open_direct(uint64_t size) {
  if (size >= kMinDirectBytes && !in_order_ && file_system_of(fd_.get()).kind == FileSystem::Kind::kLocalDisk) {
    direct_fd_ = open(sibling_, O_WRONLY | O_DIRECT | O_NOFOLLOW, 0);  // refused: written through the cache
    direct_ = static_cast<bool>(direct_fd_);
    direct_writes_ = static_cast<int>(std::clamp<uint64_t>(size / kBytesPerDirectWrite, kMinDirectWrites, kMaxDirectWrites));
  }
}

void PosixWritableFile::do_write_at(uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t head = align_up(offset, kDirectBlockBytes) - offset;
  if (!uses_direct_io() || head >= bytes.size() || !is_aligned(bytes.data() + head, kDirectBlockBytes)) {
    write_fully(calls_, fd_.get(), offset, bytes);
    return;
  }
  // Pages that another write has a part of are written through the cache by both, so that no page is written in both ways.
  const uint64_t tail = (offset + bytes.size()) % kDirectBlockBytes;
  write_fully(calls_, fd_.get(), offset, bytes.first(head));
  write_direct(offset + head, bytes.subspan(head, bytes.size() - head - tail));
  write_fully(calls_, fd_.get(), offset + bytes.size() - tail, bytes.last(tail));
}

void PosixWritableFile::write_direct(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put =
        uninterrupted([&] { return calls_.pwrite(direct_fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (put < 0 && errno != EINVAL) {
      throw Error::from_errno(errno, "write").at_offset(offset);
    }
    // Of a block that was written in part the rest cannot be written alone: it is written again.
    const uint64_t whole = put < 0 ? 0 : align_down(static_cast<uint64_t>(put), kDirectBlockBytes);
    if (whole == 0) {
      direct_.store(false, std::memory_order_relaxed);
      write_fully(calls_, fd_.get(), offset, bytes);
      return;
    }
    offset += whole;
    bytes = bytes.subspan(whole);
  }
}

void PosixWritableFile::do_commit() {
  sync(fd_.get(), "the file");
  direct_fd_.reset();
  close(fd_);
  if (calls_.rename(sibling_.c_str(), target_.c_str()) == 0) {
    sibling_.clear();
  } else if (means_unsupported(errno)) {
    copy_to_target();
  } else {
    throw Error::from_errno(errno, "rename");
  }
  sync_directory();
}

UniqueFd PosixWritableFile::open(const std::string& path, int flags, mode_t mode) const {
  return UniqueFd(uninterrupted([&] { return calls_.open(path.c_str(), flags | O_CLOEXEC, mode); }));
}

void PosixWritableFile::sync(int fd, const char* what) {
  if (uninterrupted([&] { return calls_.fsync(fd); }) == 0) {
    return;
  }
  if (!means_unsupported(errno)) {
    throw Error::from_errno(errno, "fsync");
  }
  warn(concat("this file system does not sync ", what, ": after a power failure the save may be lost"));
}

void PosixWritableFile::close(UniqueFd& fd) {
  // Network file systems report here what they could not write. After EINTR Linux has closed the descriptor all the same.
  if (calls_.close(fd.release()) != 0 && errno != EINTR) {
    throw Error::from_errno(errno, "close");
  }
}

void PosixWritableFile::copy_to_target() {
  warn(
      "this file system does not rename: the file was written under its name directly, and a reader or a crash during that "
      "time would have found it incomplete");
  std::vector<std::byte> buffer(kChunkBytes);  // before the target is touched: there may not be the memory
  try {
    const UniqueFd from = open(sibling_, O_RDONLY | O_NOFOLLOW, 0);
    if (!from) {
      throw Error::from_errno(errno, "open");
    }
    UniqueFd to = open(target_, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode_);
    if (!to) {
      throw Error::from_errno(errno, "open");
    }
    uint64_t offset = 0;
    while (const size_t got = read_fully(calls_, from.get(), offset, buffer)) {
      write_fully(calls_, to.get(), offset, std::span(buffer).first(got));
      offset += got;
    }
    sync(to.get(), "the file");
    close(to);
  } catch (const Error& error) {
    // Under a name that no later save takes for that of an abandoned file.
    const std::string temporary = std::exchange(sibling_, {});
    std::string kept = concat(temporary.substr(0, temporary.size() - kSiblingEnd.size()), ".veturboio-kept");
    if (calls_.rename(temporary.c_str(), kept.c_str()) != 0) {
      kept = temporary;
    }
    Error whole(error.kind(), concat(error.cause(), "; the whole file was kept as ", kept), error.code());
    const std::optional<uint64_t> offset = error.offset();
    throw offset ? whole.at_offset(*offset) : whole;
  }
  calls_.unlink(std::exchange(sibling_, {}).c_str());
}

void PosixWritableFile::sync_directory() {
  // The data is durable and in place; what a failure here puts at risk is only which of the two files a power cut leaves.
  const UniqueFd directory = open(directory_, O_RDONLY | O_DIRECTORY, 0);
  if (!directory || uninterrupted([&] { return calls_.fsync(directory.get()); }) != 0) {
    warn("the directory could not be synced: after a power failure the old file may stand under the name");
  }
}

}  // namespace veturbo::storage
