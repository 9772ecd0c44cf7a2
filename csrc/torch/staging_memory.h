#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "torch/io_helper.h"

namespace veturbo {

enum class Pinning { kPageable, kPinned };

// Page-aligned memory of the host for several slots.
//
// For CUDA it is pinned by who first uses one of them, when pages are there already: pinned as it is allocated (cudaHostAlloc,
// which PyTorch calls), memory costs 0.4 ms a MiB on an H200's machine, in one thread, while nothing else is done; to register
// huge pages that have been written to costs 0.03. Each call costs as well, so it is one for a block. Where the system does not
// let us, copies work, too, but are waited for, and blocks made later are PyTorch's.
class StagingBlock {
 public:
  StagingBlock(at::Device device, int64_t bytes, Pinning pinning);
  ~StagingBlock();
  StagingBlock(const StagingBlock&) = delete;
  StagingBlock& operator=(const StagingBlock&) = delete;

  // Of bytes (kByte).
  const at::Tensor& tensor() const { return tensor_; }
  // Before each use by the device, which is the current one. From any thread.
  void pin();
  // Whether PyTorch keeps the memory pinned when it is freed.
  bool is_torchs() const { return is_torchs_; }

 private:
  enum class Registration { kNever, kLater, kDone };

  at::Device device_;
  bool is_torchs_ = false;
  std::mutex mutex_;
  Registration registration_ = Registration::kNever;
  at::Tensor tensor_;
};

// What a chunk passes through. Of page-aligned bytes (kByte).
struct StagingSlot {
  std::shared_ptr<StagingBlock> block;
  at::Tensor tensor;
};

// In as few blocks as are well pinned one after the other.
StagingSlots make_slots(at::Device device, size_t num_slots, int64_t slot_bytes, Pinning pinning);

// The slots of one job: a helper's, or its own.
class StagingMemory {
 public:
  StagingMemory(at::Device device, size_t num_slots, int64_t slot_bytes, Pinning pinning, const OptionalHelper& helper);
  ~StagingMemory();
  StagingMemory(const StagingMemory&) = delete;
  StagingMemory& operator=(const StagingMemory&) = delete;

  const StagingSlot& operator[](size_t slot) const { return slots_[slot]; }
  // At least as large as was asked for.
  std::vector<std::span<std::byte>> slots() const;

 private:
  c10::intrusive_ptr<IOHelper> helper_;
  uint64_t generation_ = 0;
  StagingSlots slots_;
};

}  // namespace veturbo
