#pragma once

#include <memory>
#include <string>

#include "storage/sfcs/connection.h"

namespace veturbo::storage::sfcs {

struct FileInfo {
  bool is_directory;
  uint64_t size;
  tTime modified;
  unsigned mode;  // 0 where the library does not tell
};

// Throws Error(kIo), with ENOENT for what is not there.
FileInfo get_file_info(const Connection& connection, const std::string& path);

}  // namespace veturbo::storage::sfcs
