#include "failure.h"

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

namespace fake {

void fail(int code, const std::string& reason) {
  if (code == kKilled) {
    ::raise(SIGKILL);
  }
  throw Failure{code, reason.empty() ? std::strerror(code) : reason};
}

void violation(const std::string& what) {
  const std::string line = "libcloudfs stand-in: " + what + "\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  std::abort();
}

std::string errno_name(int code) {
  const char* const name = ::strerrorname_np(code);
  return name == nullptr ? std::to_string(code) : name;
}

int errno_number(const std::string& name) {
  if (name == "KILL") {
    return kKilled;
  }
  for (int code = 1; code < 256; ++code) {
    if (const char* const known = ::strerrorname_np(code); known != nullptr && name == known) {
      return code;
    }
  }
  return 0;
}

}  // namespace fake
