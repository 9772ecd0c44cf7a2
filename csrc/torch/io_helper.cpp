#include "torch/io_helper.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/core/CachingHostAllocator.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>

#include "base/align.h"

namespace veturbo {

namespace {

at::Tensor allocate_bytes(int64_t bytes, Pinning pinning) {
  // PyTorch's pinned memory comes in whole pages; pageable memory may begin anywhere, so a page more is asked for.
  const c10::InferenceMode inference;
  if (pinning == Pinning::kPinned) {
    return at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  }
  const int64_t page = static_cast<int64_t>(page_size());
  const at::Tensor memory = at::empty({bytes + page}, at::TensorOptions(at::kByte));
  const int64_t misplaced = static_cast<int64_t>(reinterpret_cast<uintptr_t>(memory.data_ptr()) % page_size());
  return memory.narrow(0, (page - misplaced) % page, bytes);
}

// PyTorch keeps pinned memory that is given back pinned for later.
void unpin_what_is_free() {
  at::getHostAllocator(at::getAccelerator(/*checked=*/true).value())->empty_cache();
}

}  // namespace

int64_t IOHelper::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

void IOHelper::release() {
  std::vector<at::Tensor> memory;
  {
    std::lock_guard lock(mutex_);
    memory = std::exchange(free_, {});
    for (const at::Tensor& tensor : memory) {
      bytes_ -= tensor.numel();
    }
    ++generation_;
  }
  if (!memory.empty()) {
    memory.clear();
    unpin_what_is_free();
  }
}

at::Tensor IOHelper::take(int64_t bytes) {
  std::vector<at::Tensor> small;
  {
    std::lock_guard lock(mutex_);
    const auto fits = [bytes](const at::Tensor& memory) { return memory.numel() >= bytes; };
    const auto found = std::find_if(free_.begin(), free_.end(), fits);
    if (found != free_.end()) {
      at::Tensor memory = std::move(*found);
      free_.erase(found);
      return memory;
    }
    // What is too small now would be too small again for the same model: it makes room for what fits.
    small = std::exchange(free_, {});
    for (const at::Tensor& memory : small) {
      bytes_ -= memory.numel();
    }
  }
  if (!small.empty()) {
    small.clear();
    unpin_what_is_free();
  }
  at::Tensor memory = allocate_bytes(bytes, Pinning::kPinned);
  std::lock_guard lock(mutex_);
  bytes_ += memory.numel();
  return memory;
}

void IOHelper::give(at::Tensor memory, uint64_t generation) {
  {
    std::lock_guard lock(mutex_);
    if (generation == generation_) {
      free_.push_back(std::move(memory));
      return;
    }
    bytes_ -= memory.numel();
  }
  memory.reset();
  unpin_what_is_free();
}

StagingMemory::StagingMemory(int64_t bytes, Pinning pinning, const OptionalHelper& helper) {
  if (!helper || pinning == Pinning::kPageable) {
    tensor_ = allocate_bytes(bytes, pinning);
    return;
  }
  helper_ = *helper;
  {
    std::lock_guard lock(helper_->mutex_);
    generation_ = helper_->generation_;
  }
  tensor_ = helper_->take(bytes);
}

StagingMemory::~StagingMemory() {
  if (helper_) {
    try {
      helper_->give(std::move(tensor_), generation_);
    } catch (...) {
      // A device that has failed unpins no more.
    }
  }
}

}  // namespace veturbo
