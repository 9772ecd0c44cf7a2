#pragma once

#include <cstdint>
#include <functional>

#include "log.h"

namespace fake {

// One call of a function of the library: meets its fault if it has one, takes its time, and ends up in the log.
class Call {
 public:
  Call(Entry& entry, bool fails_after) : entry_(entry), fails_after_(fails_after) {}

  // The work is to be done, and then the call fails: a new object is not handed out, then, and a write leaves something out.
  bool fails_after() const { return fails_after_; }

  // How much of `size` bytes is to be read or written now: not always all of it. At least one if there are any.
  uint64_t portion(uint64_t size) const;

  void has_transferred(uint64_t size) { transferred_ += size; }
  uint64_t transferred() const { return transferred_; }

  // For what becomes known on the way.
  Entry& entry() { return entry_; }

 private:
  Entry& entry_;
  bool fails_after_;
  uint64_t transferred_ = 0;
};

enum class Where { kServer, kClient };  // a call that stays within the client takes no time

// Runs body, which may throw Failure, as the call that entry tells of. Returns what body returns, or `failed` with errno set.
int64_t perform(Entry entry, Where where, int64_t failed, const std::function<int64_t(Call&)>& body);

// The functions that cannot fail.
void note(const char* function);

const char* last_error();

}  // namespace fake
