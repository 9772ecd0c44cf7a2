#include "engine/staging.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace veturbo::engine {

namespace {

constexpr uint64_t kSlotAlignment = 4096;

}  // namespace

StagingSink::StagingSink(std::vector<std::span<std::byte>> slots, std::unique_ptr<AsyncCopier> copier)
    : slots_(std::move(slots)), copier_(std::move(copier)), free_(slots_.size()) {
  std::iota(free_.rbegin(), free_.rend(), size_t{0});
}

size_t StagingSink::acquire(const Chunk& chunk, std::span<const Segment> segments, Spans& memory) {
  const size_t slot = take_slot();
  std::span<std::byte> rest = bytes_in_slot(chunk, slot);
  for (const Segment& segment : segments) {
    memory.push_back(rest.first(segment.size));
    rest = rest.subspan(segment.size);
  }
  return slot;
}

void StagingSink::deliver(const Chunk& chunk, std::span<const Segment> segments, size_t slot) {
  try {
    copier_->start(slot, segments, bytes_in_slot(chunk, slot));
  } catch (...) {
    keep_failure();
    throw;
  }
  std::lock_guard lock(mutex_);
  in_flight_.push_back(slot);
  changed_.notify_one();
}

void StagingSink::abandon(size_t slot) noexcept {
  release(slot);
}

void StagingSink::drain() {
  std::unique_lock lock(mutex_);
  while (!in_flight_.empty()) {
    const size_t slot = in_flight_.front();
    in_flight_.pop_front();
    lock.unlock();
    wait_for_copy(slot);
    release(slot);
    lock.lock();
  }
}

size_t StagingSink::take_slot() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !free_.empty() || !in_flight_.empty() || failure_; });
  if (failure_) {
    std::rethrow_exception(failure_);
  }
  if (!free_.empty()) {
    const size_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  // Copies may end in another order than they began.
  const auto done = std::find_if(in_flight_.begin(), in_flight_.end(), [this](size_t slot) { return copier_->is_done(slot); });
  const auto chosen = done == in_flight_.end() ? in_flight_.begin() : done;
  const size_t slot = *chosen;
  in_flight_.erase(chosen);
  lock.unlock();
  wait_for_copy(slot);
  return slot;
}

void StagingSink::wait_for_copy(size_t slot) {
  try {
    copier_->wait(slot);
  } catch (...) {
    keep_failure();
    throw;
  }
}

void StagingSink::keep_failure() noexcept {
  std::lock_guard lock(mutex_);
  if (!failure_) {
    failure_ = std::current_exception();
  }
  changed_.notify_all();
}

void StagingSink::release(size_t slot) noexcept {
  std::lock_guard lock(mutex_);
  free_.push_back(slot);
  changed_.notify_one();
}

std::span<std::byte> StagingSink::bytes_in_slot(const Chunk& chunk, size_t slot) const {
  // As far from an aligned address in memory as in the file. A chunk ends at the latest at the next multiple of the chunk size,
  // so it fits all the same.
  return slots_[slot].subspan(chunk.file_offset % kSlotAlignment, chunk.size);
}

}  // namespace veturbo::engine
