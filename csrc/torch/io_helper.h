#pragma once

#include <c10/core/Device.h>
#include <torch/custom_class.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace veturbo {

struct StagingSlot;
using StagingSlots = std::vector<StagingSlot>;

// Staging memory that stays pinned between loads and saves. May be used by many threads at once; each gets memory of its own.
class IOHelper : public torch::CustomClassHolder {
 public:
  IOHelper();
  ~IOHelper() override;

  // Bytes of pinned memory that are held, lent out or not.
  int64_t bytes() const;
  // Gives back what is not lent out now, and what is as soon as it comes back.
  void release();

 private:
  friend class StagingMemory;

  // Each of at least so many bytes. The generation goes back with them.
  StagingSlots take(c10::Device device, size_t num_slots, int64_t slot_bytes, uint64_t& generation);
  void give(StagingSlots slots, uint64_t generation) noexcept;
  void forget(const StagingSlots& slots);

  mutable std::mutex mutex_;
  StagingSlots free_;
  int64_t bytes_ = 0;
  uint64_t generation_ = 0;  // counts releases
};

using OptionalHelper = std::optional<c10::intrusive_ptr<IOHelper>>;

}  // namespace veturbo
