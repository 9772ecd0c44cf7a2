#pragma once

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

namespace veturbo::storage {

// Every system call that moves or publishes data, and what decides how, behind one table: the tests put failing ones in its
// place, one at a time.
struct SystemCalls {
  int (*open)(const char* path, int flags, mode_t mode);
  int (*statx)(int fd, const char* path, int flags, unsigned mask, struct statx* info);
  ssize_t (*pread)(int fd, void* buffer, size_t count, off_t offset);
  ssize_t (*preadv)(int fd, const struct iovec* parts, int count, off_t offset);
  ssize_t (*pwrite)(int fd, const void* buffer, size_t count, off_t offset);
  int (*fallocate)(int fd, int mode, off_t offset, off_t length);
  int (*ftruncate)(int fd, off_t length);
  int (*fchmod)(int fd, mode_t mode);
  int (*flock)(int fd, int operation);
  int (*fsync)(int fd);
  int (*close)(int fd);
  int (*rename)(const char* from, const char* to);
  int (*unlink)(const char* path);
};

const SystemCalls& system_calls();

// Makes a call again as long as a signal interrupts it, which network and user-space file systems let happen to more than reads
// and writes. Not for close(), which has closed all the same, nor for rename(), which may have renamed.
template <typename Call>
auto uninterrupted(Call&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

// Reads until `out` is full or the file ends and returns how much was read; interrupted and short reads are continued.
// Throws Error(kIo) with the offset.
size_t read_fully(const SystemCalls& calls, int fd, uint64_t offset, std::span<std::byte> out);

// Writes all of `bytes`. Throws Error(kIo) with the offset.
void write_fully(const SystemCalls& calls, int fd, uint64_t offset, std::span<const std::byte> bytes);

}  // namespace veturbo::storage
