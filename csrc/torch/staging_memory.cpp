#include "torch/staging_memory.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/align.h"
#include "base/mapped_region.h"
#include "torch/tensor_memory.h"

#ifdef VETURBO_WITH_CUDA
#include "cuda/host_memory.h"
#endif

namespace veturbo {

namespace {

constexpr int64_t kBlockBytes = int64_t{64} << 20;

#ifdef VETURBO_WITH_CUDA

// Whether the system has once not let us: then PyTorch's pinned memory serves.
std::atomic<bool> registration_fails = false;

bool registers(at::Device device) {
  return device.is_cuda() && !registration_fails;
}

bool register_memory(const at::Tensor& memory) {
  const bool done = cuda::pin(memory.data_ptr(), memory.nbytes());
  registration_fails = registration_fails || !done;
  return done;
}

void unregister_memory(const at::Tensor& memory) {
  cuda::unpin(memory.data_ptr());
}

#else

bool registers(at::Device) {
  return false;
}

bool register_memory(const at::Tensor&) {
  return false;
}

void unregister_memory(const at::Tensor&) {}

#endif

at::Tensor mapped_memory(int64_t bytes) {
  const auto region =
      std::make_shared<MappedRegion>(MappedRegion::anonymous(align_up(static_cast<uint64_t>(bytes), page_size())));
  region->wipe_on_fork();
  return tensor_over(region, 0, static_cast<uint64_t>(bytes), {bytes}, at::kByte, Reclaim::kKeepPages);
}

}  // namespace

StagingBlock::StagingBlock(at::Device device, int64_t bytes, Pinning pinning) : device_(device) {
  const c10::InferenceMode inference;
  if (pinning == Pinning::kPinned && !registers(device)) {
    is_torchs_ = true;
    tensor_ = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));  // whole pages
    return;
  }
  registration_ = pinning == Pinning::kPinned ? Registration::kLater : Registration::kNever;
  tensor_ = mapped_memory(bytes);
}

StagingBlock::~StagingBlock() {
  if (registration_ != Registration::kDone) {
    return;
  }
  try {
    const c10::DeviceGuard guard(device_);
    unregister_memory(tensor_);
  } catch (...) {
    // A device that has failed unpins no more.
  }
}

void StagingBlock::pin() {
  std::lock_guard lock(mutex_);
  if (registration_ == Registration::kLater) {
    registration_ = register_memory(tensor_) ? Registration::kDone : Registration::kNever;
  }
}

StagingSlots make_slots(at::Device device, size_t num_slots, int64_t slot_bytes, Pinning pinning) {
  const c10::InferenceMode inference;
  const auto in_block = static_cast<size_t>(std::max<int64_t>(1, kBlockBytes / slot_bytes));
  StagingSlots slots;
  slots.reserve(num_slots);
  while (slots.size() < num_slots) {
    const size_t count = std::min(in_block, num_slots - slots.size());
    const auto block = std::make_shared<StagingBlock>(device, static_cast<int64_t>(count) * slot_bytes, pinning);
    for (const at::Tensor& tensor : block->tensor().split(slot_bytes)) {
      slots.push_back({block, tensor});
    }
  }
  return slots;
}

StagingMemory::StagingMemory(at::Device device, size_t num_slots, int64_t slot_bytes, Pinning pinning,
                             const OptionalHelper& helper) {
  if (!helper || pinning == Pinning::kPageable) {
    slots_ = make_slots(device, num_slots, slot_bytes, pinning);
    return;
  }
  helper_ = *helper;
  slots_ = helper_->take(device, num_slots, slot_bytes, generation_);
}

StagingMemory::~StagingMemory() {
  if (helper_) {
    helper_->give(std::move(slots_), generation_);
  }
}

std::vector<std::span<std::byte>> StagingMemory::slots() const {
  std::vector<std::span<std::byte>> spans;
  spans.reserve(slots_.size());
  for (const StagingSlot& slot : slots_) {
    spans.emplace_back(static_cast<std::byte*>(slot.tensor.data_ptr()), slot.tensor.nbytes());
  }
  return spans;
}

}  // namespace veturbo
