#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/load.h"

// Loading into memory that the CPU cannot write: each chunk is read into a slot of staging memory, copied from there by the
// device while the next chunks are being read, and the slot used again once the device says that it has been copied.
namespace veturbo::engine {

// What staging needs of a device. `slot` tells copies apart; of one slot there is at most one copy at a time. Slots may be used
// by many threads at once. Destroying a copier waits for all that it began, also where start() or wait() threw: the device reads
// from staging memory until then.
class AsyncCopier {
 public:
  virtual ~AsyncCopier() = default;

  // Begins to copy `bytes`, the chunk as it is in the file, to its targets, and returns when that has been queued.
  virtual void start(size_t slot, std::span<const Segment> segments, std::span<const std::byte> bytes) = 0;
  virtual bool is_done(size_t slot) = 0;
  // Waits for the copy. Throws what the device has to say against it.
  virtual void wait(size_t slot) = 0;
};

class StagingSink final : public ChunkSink {
 public:
  // Each slot holds a whole chunk of the plan. Direct I/O reads straight into slots that are aligned to 4096.
  StagingSink(std::vector<std::span<std::byte>> slots, std::unique_ptr<AsyncCopier> copier);

  size_t acquire(const Chunk& chunk, std::span<const Segment> segments, Spans& memory) override;
  void deliver(const Chunk& chunk, std::span<const Segment> segments, size_t slot) override;
  void abandon(size_t slot) noexcept override;
  void drain() override;

 private:
  size_t take_slot();
  void wait_for_copy(size_t slot);
  void keep_failure() noexcept;
  void release(size_t slot) noexcept;
  std::span<std::byte> bytes_in_slot(const Chunk& chunk, size_t slot) const;

  std::vector<std::span<std::byte>> slots_;
  std::unique_ptr<AsyncCopier> copier_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<size_t> free_;
  std::deque<size_t> in_flight_;  // oldest first
  std::exception_ptr failure_;    // of the first copy that failed; its slot is never used again, so nobody may wait for one
};

}  // namespace veturbo::engine
