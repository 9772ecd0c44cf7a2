#pragma once

#include <mutex>
#include <vector>

#include "base/unique_fd.h"
#include "storage/system_calls.h"

namespace veturbo::storage {

// One file, opened as often as there are readers at once: on far file systems an open file is a stream of its own, with its own
// read-ahead, its own connection, its own bandwidth.
class ReaderHandles {
 public:
  // `first` is that file; it is opened again with `flags` of open().
  ReaderHandles(UniqueFd first, int flags, const SystemCalls& calls);

  // What all may use.
  int first() const { return first_.get(); }

  // Opens the file once more, with further flags. By way of /proc it is the same one for certain, whatever has become of its
  // name.
  UniqueFd open_again(int more_flags = 0) const;
  // The same, for the next reader.
  void open_another() { give(open_again()); }

  // Calls `read(fd)` with a handle that nobody else has meanwhile; with the first one where no more can be opened.
  template <typename Read>
  auto read_alone(Read&& read) {
    UniqueFd own = take();
    auto result = read(own ? own.get() : first_.get());
    give(std::move(own));
    return result;
  }

 private:
  UniqueFd take();
  void give(UniqueFd handle);

  const SystemCalls& calls_;
  UniqueFd first_;
  int flags_;
  std::mutex mutex_;
  std::vector<UniqueFd> idle_;
};

}  // namespace veturbo::storage
