#include "keys/pause.h"

#include <condition_variable>
#include <mutex>

#include "base/error.h"

namespace veturbo::keys {

void throw_if_stopped(const std::stop_token& stop) {
  if (stop.stop_requested()) {
    throw Error(ErrorKind::kCancelled, "cancelled");
  }
}

void pause(std::chrono::milliseconds duration, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, duration, [] { return false; });
  throw_if_stopped(stop);
}

}  // namespace veturbo::keys
