#include "log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

namespace slow_fs {

Log::Log(const std::string& path) {
  if (path.empty()) {
    return;
  }
  fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd_ < 0) {
    throw std::invalid_argument("cannot write the log " + path);
  }
}

void Log::opened(const char* path, uint64_t handle, bool direct) const {
  write(std::string("open ") + path + " " + std::to_string(handle) + (direct ? " direct" : " cached"));
}

void Log::read(const char* path, uint64_t handle, uint64_t offset, uint64_t size, int at_once) const {
  write(std::string("read ") + path + " " + std::to_string(handle) + " " + std::to_string(offset) + " " + std::to_string(size) +
        " " + std::to_string(at_once));
}

void Log::write(const std::string& line) const {
  const std::string whole = line + "\n";
  if (fd_ >= 0 && ::write(fd_, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size())) {
    std::abort();  // tests must not go by half a log
  }
}

}  // namespace slow_fs
