#pragma once

namespace veturbo::storage {

// Whether the open file lives in memory (tmpfs, /dev/shm).
bool is_memory_file_system(int fd);

// Whether the open file lies on a local disk's file system, where reading past the page cache is safe and pays when the file is
// cold. On network and user-space file systems O_DIRECT means anything from nothing to no read-ahead: only on request there.
bool is_local_disk_file_system(int fd);

}  // namespace veturbo::storage
