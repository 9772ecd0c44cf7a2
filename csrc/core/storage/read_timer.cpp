#include "storage/read_timer.h"

#include <sys/resource.h>

namespace veturbo::storage {

namespace {

// A local disk answers sooner, and one stream from it, or the page cache, gives more. Beyond this more readers help.
constexpr std::chrono::duration<double> kLongDelay = std::chrono::milliseconds(1);
constexpr double kLowBytesPerSecond = 400e6;

// How often the thread has given the core away by itself, as it does to wait.
long voluntary_waits() {
  struct rusage usage = {};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

}  // namespace

ReadTimer::ReadTimer() : begin_(std::chrono::steady_clock::now()), waits_(voluntary_waits()) {}

bool ReadTimer::waited(uint64_t bytes) const {
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin_;
  const std::chrono::duration<double> at_low_rate(static_cast<double>(bytes) / kLowBytesPerSecond);
  return taken > kLongDelay + at_low_rate && voluntary_waits() > waits_;
}

}  // namespace veturbo::storage
