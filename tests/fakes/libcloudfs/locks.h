#pragma once

#include <string>
#include <utility>

#include "base/unique_fd.h"

namespace fake {

// The lock of a file that is not being written. It is freed in so many words: a process that was forked meanwhile has the
// descriptor too, and that alone would keep it.
class LockedFile {
 public:
  LockedFile() = default;
  explicit LockedFile(veturbo::UniqueFd fd) : fd_(std::move(fd)) {}
  LockedFile(LockedFile&&) = default;
  LockedFile& operator=(LockedFile&&) = default;
  ~LockedFile() { unlock(fd_); }

  static void unlock(const veturbo::UniqueFd& fd);

  const veturbo::UniqueFd& fd() const { return fd_; }
  veturbo::UniqueFd keep() { return std::move(fd_); }  // locked

 private:
  veturbo::UniqueFd fd_;
};

// Opens the file of the name space that is at this path of the machine, by itself: only while nobody writes it, and nobody can
// until it is unlocked. Throws Failure, with EBUSY when it is being written.
LockedFile open_locked(const std::string& path, int flags);

}  // namespace fake
