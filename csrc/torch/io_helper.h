#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace veturbo {

enum class Pinning { kPageable, kPinned };

// Staging memory that stays pinned between loads and saves: pinning costs the system about as long as a disk takes to fill it.
// May be used by many threads at once; each gets memory of its own.
class IOHelper : public torch::CustomClassHolder {
 public:
  // Bytes of pinned memory that are held, lent out or not.
  int64_t bytes() const;
  // Gives back what is not lent out now, and what is as soon as it comes back.
  void release();

 private:
  friend class StagingMemory;

  at::Tensor take(int64_t bytes);
  void give(at::Tensor memory, uint64_t generation);

  mutable std::mutex mutex_;
  std::vector<at::Tensor> free_;
  int64_t bytes_ = 0;
  uint64_t generation_ = 0;  // counts releases
};

using OptionalHelper = std::optional<c10::intrusive_ptr<IOHelper>>;

// Staging memory for the time of one job: a helper's, or its own.
class StagingMemory {
 public:
  StagingMemory(int64_t bytes, Pinning pinning, const OptionalHelper& helper);
  ~StagingMemory();
  StagingMemory(const StagingMemory&) = delete;
  StagingMemory& operator=(const StagingMemory&) = delete;

  // Of bytes (kByte), page-aligned, at least as many as were asked for.
  const at::Tensor& tensor() const { return tensor_; }

 private:
  c10::intrusive_ptr<IOHelper> helper_;
  uint64_t generation_ = 0;
  at::Tensor tensor_;
};

}  // namespace veturbo
