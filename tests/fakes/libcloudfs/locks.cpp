#include "locks.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

#include "failure.h"

namespace fake {

void LockedFile::unlock(const veturbo::UniqueFd& fd) {
  if (fd) {
    ::flock(fd.get(), LOCK_UN);
  }
}

LockedFile open_locked(const std::string& path, int flags) {
  while (true) {
    veturbo::UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, 0644));
    if (!fd) {
      fail(errno);
    }
    struct stat opened;
    struct stat named;
    if (::fstat(fd.get(), &opened) != 0) {
      fail(errno);
    }
    if (S_ISDIR(opened.st_mode)) {
      fail(EISDIR);
    }
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      fail(errno == EWOULDBLOCK ? EBUSY : errno, "the file is being written");
    }
    // Between the two steps another one may have taken the name.
    if (::stat(path.c_str(), &named) == 0 && named.st_ino == opened.st_ino && named.st_dev == opened.st_dev) {
      return LockedFile(std::move(fd));
    }
  }
}

}  // namespace fake
