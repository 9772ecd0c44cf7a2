#include "torch/io_helper.h"

#include <ATen/Context.h>
#include <ATen/core/CachingHostAllocator.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "torch/staging_memory.h"

namespace veturbo {

namespace {

// PyTorch keeps pinned memory that is given back pinned for later.
void free_and_unpin(StagingSlots slots) {
  const bool torch_keeps =
      std::any_of(slots.begin(), slots.end(), [](const StagingSlot& slot) { return slot.block->is_torchs(); });
  slots.clear();
  if (torch_keeps) {
    at::getHostAllocator(at::getAccelerator(/*checked=*/true).value())->empty_cache();
  }
}

}  // namespace

IOHelper::IOHelper() = default;
IOHelper::~IOHelper() = default;

int64_t IOHelper::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

void IOHelper::release() {
  StagingSlots slots;
  {
    std::lock_guard lock(mutex_);
    slots = std::exchange(free_, {});
    forget(slots);
    ++generation_;
  }
  free_and_unpin(std::move(slots));
}

StagingSlots IOHelper::take(c10::Device device, size_t num_slots, int64_t slot_bytes, uint64_t& generation) {
  StagingSlots taken;
  StagingSlots small;
  {
    std::lock_guard lock(mutex_);
    generation = generation_;
    const auto fitting = std::partition(free_.begin(), free_.end(),
                                        [slot_bytes](const StagingSlot& slot) { return slot.tensor.numel() < slot_bytes; });
    const auto first = free_.end() - std::min<ptrdiff_t>(static_cast<ptrdiff_t>(num_slots), free_.end() - fitting);
    taken.assign(std::move_iterator(first), std::move_iterator(free_.end()));
    free_.erase(first, free_.end());
    if (taken.size() == num_slots) {
      return taken;
    }
    // What is too small now would be too small again for the same model: it makes room for what fits.
    small = std::exchange(free_, {});
    forget(small);
  }
  try {
    free_and_unpin(std::move(small));
    StagingSlots made = make_slots(device, num_slots - taken.size(), slot_bytes, Pinning::kPinned);
    std::lock_guard lock(mutex_);
    for (StagingSlot& slot : made) {
      bytes_ += slot.tensor.numel();
      taken.push_back(std::move(slot));
    }
  } catch (...) {
    give(std::move(taken), generation);
    throw;
  }
  return taken;
}

void IOHelper::give(StagingSlots slots, uint64_t generation) noexcept {
  try {
    {
      std::lock_guard lock(mutex_);
      if (generation == generation_) {
        std::move(slots.begin(), slots.end(), std::back_inserter(free_));
        return;
      }
      forget(slots);
    }
    free_and_unpin(std::move(slots));
  } catch (...) {
    // A device that has failed unpins no more.
  }
}

// With the mutex held: they are held no longer.
void IOHelper::forget(const StagingSlots& slots) {
  for (const StagingSlot& slot : slots) {
    bytes_ -= slot.tensor.numel();
  }
}

}  // namespace veturbo
