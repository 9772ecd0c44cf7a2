#pragma once

#include <cstdint>
#include <string>

// What has been asked for, a line a request, written when it is answered:
//
//   open PATH HANDLE direct|cached
//   read PATH HANDLE OFFSET SIZE AT_ONCE
//
// HANDLE is the number of the open file. AT_ONCE is how many reads were under way when this one began, itself included.
namespace slow_fs {

class Log {
 public:
  // None where `path` is empty.
  explicit Log(const std::string& path);

  void opened(const char* path, uint64_t handle, bool direct) const;
  void read(const char* path, uint64_t handle, uint64_t offset, uint64_t size, int at_once) const;

 private:
  void write(const std::string& line) const;

  int fd_ = -1;
};

}  // namespace slow_fs
