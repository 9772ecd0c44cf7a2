#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

// How the file system behaves:
//
//   slow_fs SOURCE MOUNTPOINT [NAME=VALUE ...]
//
//   delay_ms=10            how long a read or an open takes before anything comes
//   mb_per_s=100           what a stream (an open file) brings besides, in millions of bytes; 0: as much as there is
//   max_read=1048576       the most bytes that the kernel asks for at once
//   max_background=64      as the kernel's: how many reads it sends without waiting for their answers
//   keep_cache=1           0: opening a file drops what the page cache has of it, as many file systems in user space do
//   fail_from=OFFSET       reads that end behind it fail with EIO
//   log=FILE               where requests are written down (log.h)
namespace slow_fs {

struct Settings {
  std::string source;
  std::string mountpoint;
  std::chrono::duration<double> delay = std::chrono::milliseconds(10);
  double bytes_per_second = 100e6;
  unsigned max_read = 1U << 20;
  // The kernel's default is 12, for all readers of the mount together, which those who mount over a network raise: it bounds
  // read-ahead and direct reads, the more so the longer an answer takes.
  unsigned max_background = 64;
  bool keep_cache = true;
  std::optional<uint64_t> fail_from;
  std::string log;
};

// Throws std::invalid_argument.
Settings parse_settings(int argc, char** argv);

}  // namespace slow_fs
