#include "storage/file_system.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <array>
#include <cstdint>

namespace veturbo::storage {

namespace {

struct Known {
  uint32_t magic;
  FileSystem file_system;
};

using Kind = FileSystem::Kind;

// Numbers without a name are not in linux/magic.h, or not in that of every system.
constexpr std::array<Known, 24> kKnown = {{
    {TMPFS_MAGIC, {Kind::kMemory, "tmpfs"}},
    {RAMFS_MAGIC, {Kind::kMemory, "ramfs"}},
    {HUGETLBFS_MAGIC, {Kind::kMemory, "hugetlbfs"}},
    {EXT4_SUPER_MAGIC, {Kind::kLocalDisk, "ext4"}},
    {0x58465342, {Kind::kLocalDisk, "XFS"}},
    {BTRFS_SUPER_MAGIC, {Kind::kLocalDisk, "Btrfs"}},
    {F2FS_SUPER_MAGIC, {Kind::kLocalDisk, "F2FS"}},
    {OVERLAYFS_SUPER_MAGIC, {Kind::kLocalDisk, "overlayfs"}},
    {0x65735546, {Kind::kRemote, "FUSE"}},  // and virtiofs, and all object stores that are mounted
    {NFS_SUPER_MAGIC, {Kind::kRemote, "NFS"}},
    {0x0BD00BD0, {Kind::kRemote, "Lustre"}},
    {0x47504653, {Kind::kRemote, "GPFS"}},
    {0x19830326, {Kind::kRemote, "BeeGFS"}},
    {0x00C36400, {Kind::kRemote, "CephFS"}},
    {0x01021997, {Kind::kRemote, "9P"}},
    {0x517B, {Kind::kRemote, "SMB"}},
    {0xFF534D42, {Kind::kRemote, "SMB"}},
    {0xFE534D42, {Kind::kRemote, "SMB"}},
    {0x5346414F, {Kind::kRemote, "AFS"}},
    {0x6B414653, {Kind::kRemote, "AFS"}},
    {0x73757245, {Kind::kRemote, "Coda"}},
    {0x20030528, {Kind::kRemote, "OrangeFS"}},
    {0xAAD7AAEA, {Kind::kRemote, "PanFS"}},
    {0xBACBACBC, {Kind::kRemote, "vmhgfs"}},
}};

}  // namespace

FileSystem file_system_of(int fd) {
  struct statfs info = {};
  if (::fstatfs(fd, &info) == 0) {
    for (const Known& known : kKnown) {
      if (known.magic == static_cast<uint32_t>(info.f_type)) {
        return known.file_system;
      }
    }
  }
  return {Kind::kUnknown, "a file system that answers slowly"};
}

}  // namespace veturbo::storage
