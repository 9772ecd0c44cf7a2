#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "storage/sfcs/mount.h"

namespace veturbo::storage::sfcs {

// A file that is being written, from its beginning on, by one thread at a time.
class Part {
 public:
  enum class Name {
    kAsGiven,  // while it is open nobody else can open it for writing
    kUnique,   // a suffix is added where a create failed that may have been done all the same: its writer would be in the way
  };

  // Creates the file, or empties the one that is there.
  Part(Mount::User& mount, Retries& retries, std::string path, Name name);

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  bool is_open() const { return static_cast<bool>(handle_); }
  // Writes all of `bytes`. Where a write fails for the moment, the file tells how much of it has arrived, and the rest is
  // appended.
  void append(std::span<const std::byte> bytes);
  // Makes the file durable, closes it and looks whether all of it is there. A close that fails means that the data may not be, so
  // there is no second try.
  void close();

 private:
  size_t write_some(std::span<const std::byte> bytes) const;
  size_t reopen(uint64_t most);

  Mount::User& mount_;
  Retries& retries_;
  std::string path_;
  uint64_t size_ = 0;
  Handle handle_;
};

}  // namespace veturbo::storage::sfcs
