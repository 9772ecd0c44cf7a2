// What goes by path alone.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "call.h"
#include "failure.h"
#include "locks.h"
#include "name_server.h"

namespace {

using fake::Call;
using fake::ConnectionInUse;
using fake::Where;
using veturbo::UniqueFd;

struct stat status_of(const std::string& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0) {
    fake::fail(errno);
  }
  return status;
}

cfsFileInfo* new_info(const char* path, const struct stat& status, int64_t block_size) {
  auto* const info = static_cast<cfsFileInfo*>(std::calloc(1, sizeof(cfsFileInfo)));
  const bool is_folder = S_ISDIR(status.st_mode);
  info->kind = is_folder ? 'D' : 'F';
  info->name = ::strdup(path);
  info->lastModified = status.st_mtime;
  info->size = is_folder ? 0 : status.st_size;
  info->replication = 2;
  info->blockSize = block_size;
  info->owner = ::strdup("owner");
  info->group = ::strdup("group");
  info->permissions = static_cast<short>(status.st_mode & 0777);
  info->lastAccess = status.st_atime;
  return info;
}

void rename(const std::string& from, const std::string& to) {
  if (from == to) {
    fake::fail(EINVAL, "from and to are the same");
  }
  fake::LockedFile locks[2];
  if (!S_ISDIR(status_of(from).st_mode)) {
    locks[0] = fake::open_locked(from, O_RDONLY);
    struct stat status;
    if (::lstat(to.c_str(), &status) == 0) {
      locks[1] = fake::open_locked(to, O_RDONLY);  // says so if it is a folder
    }
  }
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    fake::fail(errno);
  }
}

void append(const UniqueFd& target, const UniqueFd& source) {
  std::vector<char> buffer(1 << 20);
  for (off_t offset = 0;;) {
    const ssize_t got = ::pread(source.get(), buffer.data(), buffer.size(), offset);
    if (got < 0 || ::write(target.get(), buffer.data(), static_cast<size_t>(got)) != got) {
      fake::fail(EIO);
    }
    if (got == 0) {
      return;
    }
    offset += got;
  }
}

void check_whole_blocks(const UniqueFd& fd, const std::string& path, int64_t block_size) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) {
    fake::fail(errno);
  }
  if (status.st_size == 0 || status.st_size % block_size != 0) {
    fake::fail(EINVAL, path + " is not whole blocks of " + std::to_string(block_size) + " bytes");
  }
}

// All is opened and checked before anything changes.
void concat(const std::vector<std::string>& paths, const std::vector<std::string>& local, int64_t block_size) {
  if (paths.size() < 2 || std::set(paths.begin(), paths.end()).size() != paths.size()) {
    fake::fail(EINVAL, "no sources, or a file that is named twice");
  }
  std::vector<fake::LockedFile> files;
  for (size_t i = 0; i < paths.size(); ++i) {
    files.push_back(fake::open_locked(local[i], i == 0 ? O_WRONLY | O_APPEND : O_RDONLY));
    if (i + 1 < paths.size()) {
      check_whole_blocks(files.back().fd(), paths[i], block_size);
    }
  }
  for (size_t i = 1; i < paths.size(); ++i) {
    append(files[0].fd(), files[i].fd());
    ::unlink(local[i].c_str());
  }
}

}  // namespace

cfsFileInfo* cfsGetPathInfo(cfsFS fs, const char* path) {
  const ConnectionInUse connection(__func__, fs);
  cfsFileInfo* info = nullptr;
  fake::perform({.function = __func__, .paths = {path}}, Where::kServer, 0, [&](Call& call) {
    const struct stat status = status_of(fake::local_path(*connection, path));
    if (call.fails_after()) {
      return 0;
    }
    info = new_info(path, status, connection->block_size);
    fake::add_info(info);
    return 1;
  });
  return info;
}

void cfsFreeFileInfo(cfsFileInfo* info, int count) {
  if (count != 1) {
    fake::violation(std::string(__func__) + " with a count that is not 1");
  }
  fake::remove_info(__func__, info);
  std::free(info->name);
  std::free(info->owner);
  std::free(info->group);
  std::free(info);
  fake::note(__func__);
}

int cfsDelete(cfsFS fs, const char* path, int recursive) {
  const ConnectionInUse connection(__func__, fs);
  return static_cast<int>(fake::perform({.function = __func__, .paths = {path}}, Where::kServer, -1, [&](Call&) {
    const std::string local = fake::local_path(*connection, path);
    if (std::string(path) == "/") {
      fake::fail(EPERM, "the root is not to be deleted");
    }
    status_of(local);
    std::error_code error;
    if (recursive != 0) {
      std::filesystem::remove_all(local, error);
    } else {
      std::filesystem::remove(local, error);
    }
    if (error) {
      fake::fail(error.value());
    }
    return 0;
  }));
}

int cfsRename2(cfsFS fs, const char* from, const char* to) {
  const ConnectionInUse connection(__func__, fs);
  return static_cast<int>(fake::perform({.function = __func__, .paths = {from, to}}, Where::kServer, -1, [&](Call&) {
    rename(fake::local_path(*connection, from), fake::local_path(*connection, to));
    return 0;
  }));
}

int cfsConcat(cfsFS fs, const char* target, const char** sources, int count) {
  const ConnectionInUse connection(__func__, fs);
  std::vector<std::string> paths = {target};
  paths.insert(paths.end(), sources, sources + count);
  return static_cast<int>(fake::perform({.function = __func__, .paths = paths}, Where::kServer, -1, [&](Call&) {
    std::vector<std::string> local;
    for (const std::string& path : paths) {
      local.push_back(fake::local_path(*connection, path));
    }
    concat(paths, local, connection->block_size);
    return 0;
  }));
}

int cfsCreateDirectory(cfsFS fs, const char* path) {
  const ConnectionInUse connection(__func__, fs);
  return static_cast<int>(fake::perform({.function = __func__, .paths = {path}}, Where::kServer, -1, [&](Call&) {
    const std::string local = fake::local_path(*connection, path);
    std::error_code error;
    std::filesystem::create_directories(local, error);
    if (error) {
      fake::fail(error.value());
    }
    // It is no error of theirs if a file has the name.
    if (!S_ISDIR(status_of(local).st_mode)) {
      fake::fail(EEXIST);
    }
    return 0;
  }));
}

tOffset cfsGetDefaultBlockSize(cfsFS fs) {
  const ConnectionInUse connection(__func__, fs);
  return fake::perform({.function = __func__}, Where::kServer, -1, [&](Call&) { return connection->block_size; });
}
