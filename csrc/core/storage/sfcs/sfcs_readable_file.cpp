#include "storage/sfcs/sfcs_readable_file.h"

#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <system_error>
#include <thread>
#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "storage/sfcs/settings.h"

namespace veturbo::storage::sfcs {

namespace {

constexpr int kReaders = 32;

// A call takes milliseconds before its first byte comes, and one reader is slow: chunks as large as will do, but so small that
// each reader has some.
constexpr uint64_t kMinChunkBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxChunkBytes = uint64_t{8} << 20;
constexpr uint64_t kChunksPerReader = 2;
constexpr uint64_t kMaxGapBytes = uint64_t{512} << 10;  // what one reader is sent in the time of a call

Handle open_handle(std::shared_ptr<const Connection> connection, const std::string& path) {
  const Library& library = connection->library();
  const cfsFile file = library.open_file(connection->get(), path.c_str(), O_RDONLY, 0, 0, 0);
  if (file == nullptr) {
    throw call_error(library, "cfsOpenFile");
  }
  return {std::move(connection), file};
}

// As far as can be told: two files of one size that were written within one second look the same.
bool is_same(const FileInfo& a, const FileInfo& b) {
  return a.size == b.size && a.modified == b.modified;
}

}  // namespace

std::unique_ptr<SfcsReadableFile> SfcsReadableFile::open(const std::string& uri, std::string_view path) {
  try {
    Location location = locate(path);
    Opened opened{.path = std::move(location.path),
                  .mount = std::make_unique<Mount::User>(location.mount_group, std::move(location.settings)),
                  .retries = std::make_unique<Retries>(),
                  .info = {},
                  .handle = {}};
    (*opened.mount)->on_connection(*opened.retries, [&](const std::shared_ptr<const Connection>& connection) {
      // In this order: a file that takes the path in between is found to be another one when the next handle is opened.
      opened.info = get_file_info(*connection, opened.path);
      if (opened.info.is_directory) {
        throw Error::from_errno(EISDIR, "");
      }
      opened.handle = open_handle(connection, opened.path);
    });
    return std::unique_ptr<SfcsReadableFile>(new SfcsReadableFile(uri, std::move(opened)));
  } catch (Error& error) {
    throw error.in_file(uri);
  }
}

SfcsReadableFile::SfcsReadableFile(std::string uri, Opened opened)
    : ReadableFile(std::move(uri), opened.info.size),
      path_(std::move(opened.path)),
      mount_(std::move(opened.mount)),
      retries_(std::move(opened.retries)),
      info_(opened.info) {
  idle_.push_back(std::move(opened.handle));
}

SfcsReadableFile::~SfcsReadableFile() {
  // At once, as they were opened: each may wait for a server.
  std::vector<std::thread> threads;
  try {
    for (size_t i = 1; i < idle_.size() && idle_[i].connection().is_of_this_process(); ++i) {
      threads.emplace_back([this, i] { idle_[i].close(); });
    }
  } catch (const std::system_error&) {
    // No more threads: the handles close one after another.
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

ReadTraits SfcsReadableFile::traits() const {
  const uint64_t chunk = std::clamp(std::bit_ceil(size() / (kReaders * kChunksPerReader)), kMinChunkBytes, kMaxChunkBytes);
  return {.chunk_size = chunk,
          .piece_size = chunk,
          .inline_bytes = 0,
          .max_gap = kMaxGapBytes,
          .parallelism = kReaders,
          .mappable = false};
}

std::vector<std::string> SfcsReadableFile::warnings() const {
  std::vector<std::string> warnings;
  if (const std::string retried = retries_->summary(); !retried.empty()) {
    warnings.push_back(concat(uri(), ": ", retried));
  }
  std::lock_guard lock(mutex_);
  if (!why_no_more_.empty()) {
    warnings.push_back(concat(uri(), ": read by fewer readers than it might have been: ", why_no_more_));
  }
  return warnings;
}

void SfcsReadableFile::do_read_at(uint64_t offset, std::span<std::byte> out) {
  Attempts attempts(*retries_);
  Handle handle = take();
  try {
    while (!out.empty()) {
      try {
        const size_t got = read_some(handle, offset, out);
        offset += got;
        out = out.subspan(got);
      } catch (const Error& error) {
        attempts.pause_after(error);
        handle = open_again();  // the old one may hang on a server that has gone
      }
    }
  } catch (Error& error) {
    give_up();
    throw error.at_offset(offset);
  } catch (...) {
    give_up();
    throw;
  }
  give(std::move(handle));
}

size_t SfcsReadableFile::read_some(const Handle& handle, uint64_t offset, std::span<std::byte> out) const {
  const Connection& connection = handle.connection();
  connection.check_process();
  const tSize size = static_cast<tSize>(std::min<uint64_t>(out.size(), INT32_MAX));
  const tSize got = connection.library().pread(connection.get(), handle.get(), static_cast<tOffset>(offset), out.data(), size);
  if (got < 0) {
    throw call_error(connection.library(), "cfsPread");
  }
  if (got == 0) {
    throw Error(ErrorKind::kIo, concat("the file ends before its ", info_.size, " bytes: it was cut short while it was read"),
                ESTALE);
  }
  return static_cast<size_t>(got);
}

Handle SfcsReadableFile::open_again() {
  return (*mount_)->on_connection(*retries_, [&](const std::shared_ptr<const Connection>& connection) {
    Handle handle = open_handle(connection, path_);
    if (!is_same(get_file_info(*connection, path_), info_)) {
      throw Error(ErrorKind::kIo, "the file has been replaced since it was opened", ESTALE);
    }
    return handle;
  });
}

// A handle that nobody uses, or another one; where none can be opened, whichever comes free first.
Handle SfcsReadableFile::take() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (!idle_.empty()) {
      Handle handle = std::move(idle_.back());
      idle_.pop_back();
      ++taken_;
      return handle;
    }
    if (why_no_more_.empty() || taken_ == 0) {
      ++taken_;
      lock.unlock();
      try {
        return open_again();
      } catch (const Error& error) {
        give_up();
        lock.lock();
        if (idle_.empty() && taken_ == 0) {
          throw;
        }
        why_no_more_ = error.cause();
      } catch (...) {
        give_up();
        throw;
      }
    } else {
      changed_.wait(lock, [this] { return !idle_.empty() || taken_ == 0; });
    }
  }
}

void SfcsReadableFile::give(Handle handle) {
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(handle));
  --taken_;
  changed_.notify_one();
}

void SfcsReadableFile::give_up() {
  std::lock_guard lock(mutex_);
  --taken_;
  changed_.notify_all();
}

}  // namespace veturbo::storage::sfcs
