#include "log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "failure.h"
#include "settings.h"

namespace fake {
namespace {

std::string quoted(const std::string& path) {
  std::string text;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && (std::isalnum(byte) != 0 || std::strchr("./_-", c) != nullptr)) {
      text += c;
    } else {
      char hexadecimal[4];
      std::snprintf(hexadecimal, sizeof hexadecimal, "%%%02X", byte);
      text += hexadecimal;
    }
  }
  return text;
}

std::string or_dash(const std::optional<int64_t>& value) {
  return value ? std::to_string(*value) : "-";
}

}  // namespace

void write_to_log(const Entry& entry) {
  if (settings().log.empty()) {
    return;
  }
  std::string paths;
  for (const std::string& path : entry.paths) {
    paths += (paths.empty() ? "" : ",") + quoted(path);
  }
  write_to_log(entry.function + (" " + (paths.empty() ? "-" : paths)) + " " + or_dash(entry.offset) + " " + or_dash(entry.size) +
               " " + or_dash(entry.result) + " " + (entry.code == 0 ? "-" : errno_name(entry.code)) + " " +
               std::to_string(::getpid()) + " " + std::to_string(::gettid()));
}

// Opened anew each time: no descriptor is there that a forked process or a curious caller could close.
void write_to_log(const std::string& line) {
  if (settings().log.empty()) {
    return;
  }
  const std::string whole = line + "\n";
  const int fd = ::open(settings().log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ::write(fd, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size())) {
    violation("FAKE_CLOUDFS_LOG=" + settings().log + ": " + std::strerror(errno));
  }
  ::close(fd);
}

}  // namespace fake
