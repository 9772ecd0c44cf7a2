#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "storage/readable_file.h"
#include "storage/writable_file.h"

namespace veturbo::storage {

// Whether reads go past the page cache. kAuto: when the file is not in the cache and its file system gains by it.
enum class DirectIo { kAuto, kNever, kAlways };

struct ReadOptions {
  DirectIo direct_io = DirectIo::kAuto;
};

// A uri is a path or SCHEME://REST. With VETURBOIO_USE_SFCS_SDK=1 a path is one of SFCS, unless it is in /dev/shm. Throws
// Error(kInvalidArgument) for a scheme that no back end serves, Error(kIo) as the back end has it.
std::unique_ptr<ReadableFile> open_for_read(const std::string& uri, const ReadOptions& options);

// `size` is what will be written in all; 0 when it is not known.
std::unique_ptr<WritableFile> open_for_write(const std::string& uri, uint64_t size);

// Does what may take minutes before the file can be opened: asking for credentials. Throws as open_for_read(), and
// Error(kCancelled) soon after `stop` was requested.
void prepare(const std::string& uri, const std::stop_token& stop);

// Ends the process's connections that nobody uses, and removes what they keep on disks. For processes that end without exit().
void disconnect();

// The file's path, by which its key is asked for: absolute, without the scheme.
std::string absolute_path(const std::string& uri);

// Whether the file is on this machine or where the operating system sees it, so that other programs and libraries reach it by its
// path.
bool is_local(const std::string& uri);

}  // namespace veturbo::storage
