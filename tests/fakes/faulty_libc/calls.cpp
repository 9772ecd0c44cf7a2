// A libc some of whose calls fail, are made in part or late: to be preloaded (LD_PRELOAD). What a call does otherwise is left to
// the kernel, as libc does. Calls that libc makes itself (in fopen(), say) do not come by here.
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>

#include "scenario.h"

namespace faulty {
namespace {

// What is smaller belongs to whoever allocates: Python's arenas are half as large.
constexpr size_t kLargeMapping = size_t{2} << 20;

std::string path_of(int fd) {
  char link[32];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  char path[PATH_MAX];
  const ssize_t length = ::readlink(link, path, sizeof path);
  return {path, static_cast<size_t>(length < 0 ? 0 : length)};
}

// The errno with which a call is to fail, or 0. `subject` is a descriptor or a path.
template <typename Subject>
int fault(const char* call, Subject subject, off_t offset = -1, size_t* count = nullptr) {
  if (!is_armed()) {
    return 0;
  }
  const int before = errno;
  int code = 0;
  if constexpr (std::is_same_v<Subject, int>) {
    code = decide(call, path_of(subject), offset, count);
  } else {
    code = decide(call, subject, offset, count);
  }
  errno = before;
  return code;
}

template <typename Subject>
bool fails(const char* call, Subject subject, off_t offset = -1, size_t* count = nullptr) {
  const int code = fault(call, subject, offset, count);
  if (code != 0) {
    errno = code;
  }
  return code != 0;
}

int open_at(int directory, const char* path, int flags, mode_t mode) {
  if (fails((flags & O_DIRECT) != 0 ? "open-direct" : "open", path)) {
    return -1;
  }
  return static_cast<int>(::syscall(SYS_openat, directory, path, flags, mode));
}

int rename_at(int from_directory, const char* from, int to_directory, const char* to, unsigned flags) {
  if (fails("rename", to)) {
    return -1;
  }
  return static_cast<int>(::syscall(SYS_renameat2, from_directory, from, to_directory, to, flags));
}

void* map(void* address, size_t size, int protection, int flags, int fd, off_t offset) {
  const bool anonymous = (flags & MAP_ANONYMOUS) != 0;
  if (anonymous ? size > kLargeMapping && fails("mmap-anonymous", "") : fails("mmap", fd)) {
    return MAP_FAILED;
  }
  return reinterpret_cast<void*>(::syscall(SYS_mmap, address, size, protection, flags, fd, offset));
}

}  // namespace
}  // namespace faulty

// The header's declarations promise things of the arguments that need not be repeated here.
#define CALL extern "C" __attribute__((visibility("default")))
#define MODE_OF(flags, mode)                                            \
  mode_t mode = 0;                                                      \
  if (((flags) & O_CREAT) != 0 || ((flags) & O_TMPFILE) == O_TMPFILE) { \
    va_list arguments;                                                  \
    va_start(arguments, flags);                                         \
    mode = va_arg(arguments, mode_t);                                   \
    va_end(arguments);                                                  \
  }

CALL int open(const char* path, int flags, ...) {
  MODE_OF(flags, mode)
  return faulty::open_at(AT_FDCWD, path, flags, mode);
}

CALL int open64(const char* path, int flags, ...) {
  MODE_OF(flags, mode)
  return faulty::open_at(AT_FDCWD, path, flags, mode);
}

CALL int openat(int directory, const char* path, int flags, ...) {
  MODE_OF(flags, mode)
  return faulty::open_at(directory, path, flags, mode);
}

CALL int openat64(int directory, const char* path, int flags, ...) {
  MODE_OF(flags, mode)
  return faulty::open_at(directory, path, flags, mode);
}

CALL ssize_t read(int fd, void* buffer, size_t count) {
  return faulty::fails("read", fd, -1, &count) ? -1 : ::syscall(SYS_read, fd, buffer, count);
}

CALL ssize_t pread(int fd, void* buffer, size_t count, off_t offset) {
  return faulty::fails("pread", fd, offset, &count) ? -1 : ::syscall(SYS_pread64, fd, buffer, count, offset);
}

CALL ssize_t pread64(int fd, void* buffer, size_t count, off64_t offset) {
  return pread(fd, buffer, count, offset);
}

// Is "pread", too: the only one that asks for several parts is the direct read, which is one of its kind.
CALL ssize_t preadv(int fd, const iovec* parts, int num_parts, off_t offset) {
  iovec shortened[UIO_MAXIOV];  // not in memory of operator new, which may be failing, too
  size_t count = 0;
  for (int i = 0; i < num_parts; ++i) {
    count += parts[i].iov_len;
  }
  if (faulty::fails("pread", fd, offset, &count)) {
    return -1;
  }
  for (int i = 0; i < num_parts; ++i) {
    shortened[i] = {parts[i].iov_base, std::min(parts[i].iov_len, count)};
    count -= shortened[i].iov_len;
  }
  return ::syscall(SYS_preadv, fd, shortened, num_parts, offset, 0);
}

CALL ssize_t preadv64(int fd, const iovec* parts, int num_parts, off64_t offset) {
  return preadv(fd, parts, num_parts, offset);
}

CALL ssize_t write(int fd, const void* buffer, size_t count) {
  return faulty::fails("write", fd, -1, &count) ? -1 : ::syscall(SYS_write, fd, buffer, count);
}

CALL ssize_t pwrite(int fd, const void* buffer, size_t count, off_t offset) {
  return faulty::fails("pwrite", fd, offset, &count) ? -1 : ::syscall(SYS_pwrite64, fd, buffer, count, offset);
}

CALL ssize_t pwrite64(int fd, const void* buffer, size_t count, off64_t offset) {
  return pwrite(fd, buffer, count, offset);
}

CALL int fsync(int fd) {
  return faulty::fails("fsync", fd) ? -1 : static_cast<int>(::syscall(SYS_fsync, fd));
}

CALL int fdatasync(int fd) {
  return faulty::fails("fsync", fd) ? -1 : static_cast<int>(::syscall(SYS_fdatasync, fd));
}

CALL int rename(const char* from, const char* to) noexcept {
  return faulty::rename_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}

CALL int renameat(int from_directory, const char* from, int to_directory, const char* to) noexcept {
  return faulty::rename_at(from_directory, from, to_directory, to, 0);
}

CALL int renameat2(int from_directory, const char* from, int to_directory, const char* to, unsigned flags) noexcept {
  return faulty::rename_at(from_directory, from, to_directory, to, flags);
}

CALL int fallocate(int fd, int mode, off_t offset, off_t length) {
  return faulty::fails("fallocate", fd) ? -1 : static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, length));
}

CALL int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
  return fallocate(fd, mode, offset, length);
}

CALL int ftruncate(int fd, off_t length) noexcept {
  return faulty::fails("ftruncate", fd) ? -1 : static_cast<int>(::syscall(SYS_ftruncate, fd, length));
}

CALL int ftruncate64(int fd, off64_t length) noexcept {
  return ftruncate(fd, length);
}

CALL int fchmod(int fd, mode_t mode) noexcept {
  return faulty::fails("fchmod", fd) ? -1 : static_cast<int>(::syscall(SYS_fchmod, fd, mode));
}

CALL int flock(int fd, int operation) noexcept {
  return faulty::fails("flock", fd) ? -1 : static_cast<int>(::syscall(SYS_flock, fd, operation));
}

// Linux closes the descriptor also where it reports a failure.
CALL int close(int fd) {
  const int code = faulty::fault("close", fd);
  const int result = static_cast<int>(::syscall(SYS_close, fd));
  if (code == 0) {
    return result;
  }
  errno = code;
  return -1;
}

CALL int posix_fadvise(int fd, off_t offset, off_t length, int advice) noexcept {
  const int code = faulty::fault("fadvise", fd, offset);
  return code != 0 ? code : ::syscall(SYS_fadvise64, fd, offset, length, advice) == 0 ? 0 : errno;
}

CALL int posix_fadvise64(int fd, off64_t offset, off64_t length, int advice) noexcept {
  return posix_fadvise(fd, offset, length, advice);
}

CALL void* mmap(void* address, size_t size, int protection, int flags, int fd, off_t offset) noexcept {
  return faulty::map(address, size, protection, flags, fd, offset);
}

CALL void* mmap64(void* address, size_t size, int protection, int flags, int fd, off64_t offset) noexcept {
  return faulty::map(address, size, protection, flags, fd, offset);
}
