#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "storage/readable_file.h"
#include "storage/writable_file.h"

namespace veturbo::storage {

// Whether reads go past the page cache. kAuto: when the file is not in the cache and its file system gains by it.
enum class DirectIo { kAuto, kNever, kAlways };

struct ReadOptions {
  DirectIo direct_io = DirectIo::kAuto;
};

// A uri is a path or SCHEME://REST. Throws Error(kInvalidArgument) for a scheme that no back end serves, Error(kIo) as the back
// end has it.
std::unique_ptr<ReadableFile> open_for_read(const std::string& uri, const ReadOptions& options);

// `size` is what will be written in all; 0 when it is not known.
std::unique_ptr<WritableFile> open_for_write(const std::string& uri, uint64_t size);

// The same file by a name that does not depend on the working directory: without file://, as a local path; others as they are.
std::string absolute_uri(const std::string& uri);

}  // namespace veturbo::storage
