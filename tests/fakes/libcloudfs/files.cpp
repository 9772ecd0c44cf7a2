// Open files. A writer holds a lock on the file itself: no second one in any process, and none left when a process is killed.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>

#include "call.h"
#include "failure.h"
#include "locks.h"
#include "name_server.h"

namespace {

using fake::Call;
using fake::FileInUse;
using fake::Where;
using veturbo::UniqueFd;

struct stat status_of(const UniqueFd& fd) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) {
    fake::fail(errno);
  }
  return status;
}

UniqueFd open_for_writing(const std::string& path, bool creates, bool creates_parent) {
  if (creates && creates_parent) {
    std::error_code ignored;  // the open tells
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  }
  fake::LockedFile file = fake::open_locked(path, O_WRONLY | O_APPEND | (creates ? O_CREAT : 0));
  // Only now that nobody else is writing it.
  if (creates && ::ftruncate(file.fd().get(), 0) != 0) {
    fake::fail(errno);
  }
  return file.keep();
}

int64_t add_file(const Call& call, const fake::ConnectionInUse& connection, const char* path, UniqueFd fd, bool writes) {
  if (call.fails_after()) {
    return 0;
  }
  const int64_t size = status_of(fd).st_size;
  return fake::add(
      fake::File{.connection = connection.shared(), .path = path, .fd = std::move(fd), .writes = writes, .safe_size = size});
}

}  // namespace

cfsFile cfsOpenFile(cfsFS fs, const char* path, int flags, int buffer_size, short replication, tOffset block_size) {
  const fake::ConnectionInUse connection(__func__, fs);
  const int64_t number = fake::perform({.function = __func__, .paths = {path}}, Where::kServer, 0, [&](Call& call) {
    if (flags != O_RDONLY || buffer_size != 0 || replication != 0 || block_size != 0) {
      fake::fail(EINVAL, "only O_RDONLY, 0, 0, 0");
    }
    UniqueFd fd(::open(fake::local_path(*connection, path).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
      fake::fail(errno);
    }
    if (S_ISDIR(status_of(fd).st_mode)) {
      fake::fail(EISDIR);
    }
    return add_file(call, connection, path, std::move(fd), false);
  });
  return fake::to_pointer<cfsFile>(number);
}

cfsFile cfsOpenFileAcc(cfsFS fs, const char* path, int flags, mode_t mode, int create_parent, int is_appendable) {
  const fake::ConnectionInUse connection(__func__, fs);
  const int64_t number = fake::perform({.function = __func__, .paths = {path}}, Where::kServer, 0, [&](Call& call) {
    const bool creates = flags == (O_WRONLY | O_ASYNC) && is_appendable == 0;
    const bool appends = flags == (O_WRONLY | O_ASYNC | O_APPEND) && is_appendable == 1;
    if ((!creates && !appends) || mode != 0644) {
      fake::fail(EINVAL, "neither the arguments for a new file nor those to append to one");
    }
    return add_file(call, connection, path, open_for_writing(fake::local_path(*connection, path), creates, create_parent != 0),
                    true);
  });
  return fake::to_pointer<cfsFile>(number);
}

// Whether or not it fails, the handle is gone, as POSIX and libhdfs have it. One that fails without doing anything has lost what
// was written since the last cfsHSync.
int cfsCloseFile(cfsFS fs, cfsFile pointer) {
  FileInUse file(__func__, fs, pointer);
  bool kept = false;
  const int64_t result = fake::perform({.function = __func__, .paths = {file->path}}, Where::kServer, -1, [&](Call&) {
    kept = true;
    return 0;
  });
  const int code = errno;
  if (file->writes && !kept && ::ftruncate(file->fd.get(), file->safe_size) != 0) {
    fake::violation(file->path + " cannot be truncated");
  }
  file.close();
  errno = code;
  return static_cast<int>(result);
}

tSize cfsPread(cfsFS fs, cfsFile pointer, tOffset offset, void* data, tSize size) {
  const FileInUse file(__func__, fs, pointer);
  return static_cast<tSize>(fake::perform({.function = __func__, .paths = {file->path}, .offset = offset, .size = size},
                                          Where::kServer, -1, [&](Call& call) -> int64_t {
                                            if (file->writes) {
                                              fake::fail(EBADF, "the file is open for writing");
                                            }
                                            if (size < 0 || offset < 0) {
                                              fake::fail(EINVAL, "an offset or a size below 0");
                                            }
                                            const ssize_t got =
                                                ::pread(file->fd.get(), data, call.portion(static_cast<uint64_t>(size)), offset);
                                            if (got < 0) {
                                              fake::fail(errno);
                                            }
                                            call.has_transferred(static_cast<uint64_t>(got));
                                            return got;
                                          }));
}

int64_t cfsWrite(cfsFS fs, cfsFile pointer, const void* data, uint64_t size) {
  const FileInUse file(__func__, fs, pointer);
  return fake::perform({.function = __func__, .paths = {file->path}, .size = static_cast<int64_t>(size)}, Where::kServer, -1,
                       [&](Call& call) -> int64_t {
                         if (!file->writes) {
                           fake::fail(EBADF, "the file is open for reading");
                         }
                         call.entry().offset = status_of(file->fd).st_size;
                         const ssize_t put = ::write(file->fd.get(), data, call.portion(size));
                         if (put < 0) {
                           fake::fail(errno);
                         }
                         call.has_transferred(static_cast<uint64_t>(put));
                         return put;
                       });
}

int cfsHSync(cfsFS fs, cfsFile pointer) {
  const FileInUse file(__func__, fs, pointer);
  return static_cast<int>(fake::perform({.function = __func__, .paths = {file->path}}, Where::kServer, -1, [&](Call&) {
    if (!file->writes) {
      fake::fail(EBADF, "the file is open for reading");
    }
    file->safe_size = status_of(file->fd).st_size;
    return 0;
  }));
}
