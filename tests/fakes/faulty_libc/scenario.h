#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string_view>

namespace faulty {

// What becomes of a call that is hit. The numbers are those of tests/fakes/faults.py.
enum class Effect : int {
  kFail = 0,   // `value` is the errno
  kShort = 1,  // a transfer moves at most `value` bytes; half of what it was to where that is -1
  kSlow = 2,   // it is made `value` milliseconds later
  kKill = 3,   // the process is killed instead
};

bool is_armed();

// Decides about a call on a path. Returns the errno with which it is to fail; 0: it is to be made, perhaps later than now, or
// with less of `count`. Leaves errno alone. `offset` is for the log; -1: the call has none.
int decide(const char* call, std::string_view path, off_t offset = -1, size_t* count = nullptr);

}  // namespace faulty
