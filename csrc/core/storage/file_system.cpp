#include "storage/file_system.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace veturbo::storage {

namespace {

constexpr uint32_t kXfsMagic = 0x58465342;  // not in linux/magic.h

// Zero, which is no file system's, when the system does not tell.
uint32_t file_system_magic(int fd) {
  struct statfs info = {};
  return ::fstatfs(fd, &info) == 0 ? static_cast<uint32_t>(info.f_type) : 0;
}

}  // namespace

bool is_memory_file_system(int fd) {
  const uint32_t magic = file_system_magic(fd);
  return magic == TMPFS_MAGIC || magic == RAMFS_MAGIC || magic == HUGETLBFS_MAGIC;
}

bool is_local_disk_file_system(int fd) {
  static constexpr std::array<uint32_t, 5> kLocal = {EXT4_SUPER_MAGIC, kXfsMagic, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,
                                                     OVERLAYFS_SUPER_MAGIC};
  return std::find(kLocal.begin(), kLocal.end(), file_system_magic(fd)) != kLocal.end();
}

}  // namespace veturbo::storage
