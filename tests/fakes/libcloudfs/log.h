#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// What has been called, a line a call, in the file FAKE_CLOUDFS_LOG:
//
//   FUNCTION PATHS OFFSET SIZE RESULT ERRNO PROCESS THREAD
//
// with one space between and `-` for what there is not. PATHS has commas between, and all bytes of a path but letters, digits and
// ./_- as %XX; calls with a handle have the path that it was opened by. RESULT is what was returned; for what returns a pointer
// the number of the new object, or 0, and 0 for what returns nothing. ERRNO is a name such as ENOENT. A process writes, as the
// last thing that it does,
//
//   exit handles=N connections=N builders=N infos=N most_reads_at_once=N most_writes_at_once=N process=N
//
// with what it has left open, and the most calls of cfsPread and of cfsWrite that were under way at one time.
namespace fake {

struct Entry {
  const char* function;
  std::vector<std::string> paths = {};
  std::optional<int64_t> offset = {};
  std::optional<int64_t> size = {};
  std::optional<int64_t> result = {};
  int code = 0;
};

void write_to_log(const Entry& entry);
void write_to_log(const std::string& line);

}  // namespace fake
