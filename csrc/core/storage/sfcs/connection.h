#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "storage/sfcs/library.h"
#include "storage/sfcs/settings.h"

namespace veturbo::storage::sfcs {

// The library's threads are not in a process that was forked after it connected: nothing of a connection works there, not even
// its end. Throws Error(kInvalidArgument) when this is not `process`.
void check_process(pid_t process);

// A connection to a name node, as somebody. It ends with the last handle that was opened through it.
class Connection {
 public:
  // By the configuration in a file. Throws Error(kIo).
  Connection(const Library& library, const std::string& configuration, const Access& access);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const Library& library() const { return library_; }
  cfsFS get() const { return fs_; }

  bool is_of_this_process() const;
  void check_process() const { sfcs::check_process(process_); }

 private:
  const Library& library_;
  pid_t process_;
  cfsFS fs_;
};

// A file that is open.
class Handle {
 public:
  Handle() = default;
  Handle(std::shared_ptr<const Connection> connection, cfsFile file) : connection_(std::move(connection)), file_(file) {}
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  // What a close that fails would have to say is of interest to writers only.
  ~Handle() { close(); }

  explicit operator bool() const { return file_ != nullptr; }
  const Connection& connection() const { return *connection_; }
  cfsFile get() const { return file_; }
  // As cfsCloseFile; 0 when there is nothing to close.
  int close() noexcept;

 private:
  std::shared_ptr<const Connection> connection_;
  cfsFile file_ = nullptr;
};

// What the library says of a call that has failed just now on this thread.
Error call_error(const Library& library, const char* function);

}  // namespace veturbo::storage::sfcs
