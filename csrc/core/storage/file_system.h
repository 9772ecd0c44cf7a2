#pragma once

#include <string_view>

namespace veturbo::storage {

// What an open file's file system says of the way to it. How long that way is, it does not say: a file system in user space may
// be a folder of this machine or an object store, so what is not known to be near is measured.
struct FileSystem {
  enum class Kind {
    kMemory,     // tmpfs, /dev/shm
    kLocalDisk,  // where reading past the page cache is safe and pays when the file is cold
    kRemote,     // comes over a network, or through a program that may fetch it from one
    kUnknown,
  };
  Kind kind;
  std::string_view name;  // for messages
};

FileSystem file_system_of(int fd);

// Of this machine alone.
inline bool is_local(const FileSystem& file_system) {
  return file_system.kind == FileSystem::Kind::kMemory || file_system.kind == FileSystem::Kind::kLocalDisk;
}

inline bool is_memory_file_system(int fd) {
  return file_system_of(fd).kind == FileSystem::Kind::kMemory;
}

}  // namespace veturbo::storage
