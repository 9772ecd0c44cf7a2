#include "storage/reader_handles.h"

#include <fcntl.h>

#include <string>
#include <utility>

#include "base/concat.h"

namespace veturbo::storage {

ReaderHandles::ReaderHandles(UniqueFd first, int flags, const SystemCalls& calls)
    : calls_(calls), first_(std::move(first)), flags_(flags) {}

UniqueFd ReaderHandles::open_again(int more_flags) const {
  const std::string path = concat("/proc/self/fd/", first_.get());
  UniqueFd handle(uninterrupted([&] { return calls_.open(path.c_str(), flags_ | more_flags, 0); }));
  if (handle) {
    // The kernel then reads ahead in pieces of twice the size.
    ::posix_fadvise(handle.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  return handle;
}

UniqueFd ReaderHandles::take() {
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      UniqueFd handle = std::move(idle_.back());
      idle_.pop_back();
      return handle;
    }
  }
  return open_again();
}

void ReaderHandles::give(UniqueFd handle) {
  if (handle) {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(handle));
  }
}

}  // namespace veturbo::storage
