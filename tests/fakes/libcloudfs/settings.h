#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// How the stand-in behaves, from the environment as it is when the library is loaded:
//
//   FAKE_CLOUDFS_ROOT        a folder with `files` (the name space), `callers` and `name_node` (name_server.h)
//   FAKE_CLOUDFS_BLOCK_SIZE  the block size where the configuration has none; 1 MiB by default
//   FAKE_CLOUDFS_SHORT       a seed: reads and writes then are short at random
//   FAKE_CLOUDFS_DELAY_MS    how long a call takes that talks to a server
//   FAKE_CLOUDFS_MIB_PER_S   what a handle transfers, besides
//   FAKE_CLOUDFS_LOG         the file that calls are written to (log.h)
//   FAKE_CLOUDFS_FAIL        which calls fail: FUNCTION:WHICH:ERRNO[:after], any number of them with semicolons between
//   FAKE_CLOUDFS_SEED        of the calls that fail at random
//
// WHICH is N (the Nth call of that function in this process), N+ (it and all later ones), P% (each with that probability) or *.
// Without `after` the call fails in place of doing anything. KILL for an errno kills the process there. With it, it fails when
// its work is done (a write: some of it), so that the caller cannot know.
namespace fake {

struct Fault {
  std::string function;
  int64_t first;
  int64_t last;
  int code;
  bool after;
  double probability = 1;
};

struct Settings {
  std::string root;
  int64_t block_size = int64_t{1} << 20;
  std::optional<uint64_t> short_seed;
  std::chrono::duration<double> delay{0};
  double bytes_per_second = 0;  // 0: as many as there are
  std::string log;
  std::vector<Fault> faults;
  uint64_t fault_seed = 0;
};

const Settings& settings();

// The whole of text as a number that is at least `least`.
std::optional<int64_t> to_number(const std::string& text, int64_t least);

}  // namespace fake
