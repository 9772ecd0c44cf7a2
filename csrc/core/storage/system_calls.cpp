#include "storage/system_calls.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/error.h"

namespace veturbo::storage {

namespace {

// Linux moves at most this much in one call (0x7ffff000 bytes); asked for more, it moves less.
constexpr size_t kMaxTransfer = size_t{1} << 30;

}  // namespace

const SystemCalls& system_calls() {
  static constexpr SystemCalls kCalls = {
      .open = [](const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); },
      .statx = ::statx,
      .pread = ::pread,
      .preadv = ::preadv,
      .pwrite = ::pwrite,
      .fallocate = ::fallocate,
      .ftruncate = ::ftruncate,
      .fchmod = ::fchmod,
      .flock = ::flock,
      .fsync = ::fsync,
      .close = ::close,
      .rename = ::rename,
      .unlink = ::unlink,
  };
  return kCalls;
}

size_t read_fully(const SystemCalls& calls, int fd, uint64_t offset, std::span<std::byte> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        calls.pread(fd, out.data() + done, std::min(out.size() - done, kMaxTransfer), static_cast<off_t>(offset + done));
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (got == 0) {
      break;
    } else if (errno != EINTR) {
      throw Error::from_errno(errno, "read").at_offset(offset + done);
    }
  }
  return done;
}

void write_fully(const SystemCalls& calls, int fd, uint64_t offset, std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put =
        calls.pwrite(fd, bytes.data() + done, std::min(bytes.size() - done, kMaxTransfer), static_cast<off_t>(offset + done));
    if (put > 0) {
      done += static_cast<size_t>(put);
    } else if (put == 0) {
      // POSIX lets a write of more than nothing write nothing only on errors; going on could go on for ever.
      throw Error::from_errno(EIO, "write").at_offset(offset + done);
    } else if (errno != EINTR) {
      throw Error::from_errno(errno, "write").at_offset(offset + done);
    }
  }
}

}  // namespace veturbo::storage
