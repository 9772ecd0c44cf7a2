#include "storage/sfcs/part.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "storage/sfcs/file_info.h"

namespace veturbo::storage::sfcs {

namespace {

enum class Opening { kCreate, kAppend };

Handle open_for_writing(std::shared_ptr<const Connection> connection, const std::string& path, Opening opening) {
  const Library& library = connection->library();
  constexpr int kFlags = O_WRONLY | O_ASYNC;
  constexpr mode_t kMode = 0644;
  const cfsFile file = opening == Opening::kCreate
                           ? library.open_file_acc(connection->get(), path.c_str(), kFlags, kMode, 0, 0)
                           : library.open_file_acc(connection->get(), path.c_str(), kFlags | O_APPEND, kMode, 0, 1);
  if (file == nullptr) {
    throw call_error(library, "cfsOpenFileAcc");
  }
  return {std::move(connection), file};
}

}  // namespace

Part::Part(Mount::User& mount, Retries& retries, std::string path, Name name)
    : mount_(mount), retries_(retries), path_(std::move(path)) {
  const std::string given = path_;
  int tries = 0;
  handle_ = mount_->on_connection(retries_, [&](const std::shared_ptr<const Connection>& connection) {
    if (name == Name::kUnique && tries++ > 0) {
      path_ = concat(given, "-", tries);
    }
    return open_for_writing(connection, path_, Opening::kCreate);
  });
}

void Part::append(std::span<const std::byte> bytes) {
  Attempts attempts(retries_);
  while (!bytes.empty()) {
    size_t written = 0;
    try {
      written = write_some(bytes);
    } catch (const Error& error) {
      attempts.pause_after(error);
      written = reopen(bytes.size());
    }
    size_ += written;
    bytes = bytes.subspan(written);
  }
}

size_t Part::write_some(std::span<const std::byte> bytes) const {
  const Connection& connection = handle_.connection();
  connection.check_process();
  const int64_t written = connection.library().write(connection.get(), handle_.get(), bytes.data(), bytes.size());
  if (written < 0) {
    throw call_error(connection.library(), "cfsWrite");
  }
  if (written == 0) {
    throw Error(ErrorKind::kIo, "cfsWrite: nothing was written", EIO);
  }
  return static_cast<size_t>(written);
}

// Of the next `most` bytes some may be in the file already, in the order in which they were sent: how many. Its size is sure when
// it has been opened again: until then the last block may still be the old writer's.
size_t Part::reopen(uint64_t most) {
  handle_.close();
  return mount_->on_connection(retries_, [&](const std::shared_ptr<const Connection>& connection) {
    try {
      handle_ = open_for_writing(connection, path_, Opening::kAppend);
    } catch (const Error& error) {
      throw error.code() == EBUSY ? Error(error.kind(), error.cause(), EAGAIN)
                                  : error;  // the old writer's lease has not ended yet
    }
    const uint64_t found = get_file_info(*connection, path_).size;
    if (found < size_ || found > size_ + most) {
      throw Error(ErrorKind::kIo,
                  concat("after a write that failed, ", path_, " has ", found, " bytes instead of ", size_, " to ", size_ + most),
                  ENODATA);
    }
    return static_cast<size_t>(found - size_);
  });
}

void Part::close() {
  {
    const Connection& connection = handle_.connection();
    connection.check_process();
    const Library& library = connection.library();
    Attempts attempts(retries_);
    while (library.hsync(connection.get(), handle_.get()) != 0) {
      attempts.pause_after(call_error(library, "cfsHSync"));
    }
    if (handle_.close() != 0) {
      throw call_error(library, "cfsCloseFile");
    }
  }
  mount_->on_connection(retries_, [&](const std::shared_ptr<const Connection>& connection) {
    const uint64_t found = get_file_info(*connection, path_).size;
    if (found != size_) {
      throw Error(ErrorKind::kIo, concat(path_, " has ", found, " bytes after it was closed, not the ", size_, " written"),
                  ENODATA);
    }
  });
}

}  // namespace veturbo::storage::sfcs
