#pragma once

#include <chrono>
#include <cstdint>

namespace veturbo::storage {

// Measures one read of the calling thread, to tell near storage from far.
class ReadTimer {
 public:
  ReadTimer();
  // Whether the read so far, of so many bytes, has taken long and has waited for its storage. One that merely lost the core to
  // other threads has not: the machine is busy then, and more readers would make it no better.
  bool waited(uint64_t bytes) const;

 private:
  std::chrono::steady_clock::time_point begin_;
  long waits_;
};

}  // namespace veturbo::storage
