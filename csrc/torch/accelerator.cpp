#include "torch/accelerator.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "base/align.h"

#ifdef VETURBO_WITH_CUDA
#include <c10/cuda/CUDAStream.h>

#include "crypto/expanded_key.h"
#include "cuda/aes_ctr.h"
#endif

namespace veturbo {

namespace {

constexpr uint64_t kSlotAlignment = 4096;
constexpr int kSlotsPerThread = 2;  // one is read into while the other is copied from
// While the bytes of a chunk are decrypted on one stream, those of another are copied on the next.
constexpr size_t kStreams = 2;

// Of the first tensor that is on one.
at::Device device_of(const std::vector<at::Tensor>& tensors) {
  return std::find_if(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) { return !tensor.is_cpu(); })->device();
}

#ifdef VETURBO_WITH_CUDA

// The decryption of what has been copied to a CUDA device.
class DeviceDecrypter {
 public:
  explicit DeviceDecrypter(const engine::Cipher& cipher) : begin_(cipher.begin), key_(cipher.key.key), iv_(cipher.key.iv) {}

  // On the current device, which is the stream's. `file_offset` is where the bytes stand in the file.
  void start(const at::Tensor& bytes, uint64_t file_offset, const c10::Stream& stream) const {
    cuda::aes_ctr(bytes.mutable_data_ptr(), bytes.nbytes(), file_offset - begin_, key_.get(), iv_,
                  c10::cuda::CUDAStream(stream).stream());
  }

 private:
  uint64_t begin_;
  crypto::ExpandedKey key_;
  crypto::Iv iv_;
};

#else

struct DeviceDecrypter {
  explicit DeviceDecrypter(const engine::Cipher&) {}
  void start(const at::Tensor&, uint64_t, const c10::Stream&) const {}
};

#endif

class DeviceCopier final : public engine::AsyncCopier {
 public:
  DeviceCopier(at::Device device, std::vector<DeviceTarget> targets, size_t num_slots, size_t slot_bytes, Pinning pinning,
               const OptionalHelper& helper)
      : targets_(std::move(targets)), staging_(device, num_slots, static_cast<int64_t>(slot_bytes), pinning, helper) {
    for (size_t i = 0; i < std::min(kStreams, num_slots); ++i) {
      streams_.emplace_back(device);
    }
    for (size_t i = 0; i < num_slots; ++i) {
      events_.emplace_back(device.type());
    }
    for (const DeviceTarget& target : targets_) {
      if (target.cipher != nullptr && !decrypters_.contains(target.cipher)) {
        decrypters_.emplace(target.cipher, *target.cipher);
      }
    }
  }

  std::vector<std::span<std::byte>> slots() const { return staging_.slots(); }

  void start(size_t slot, std::span<const engine::Segment> segments, std::span<const std::byte> bytes) override {
    // Worker threads do not have the caller's modes; in this one tensors made under any of them may be written.
    const c10::InferenceMode inference;
    const c10::Stream stream = streams_[slot % streams_.size()].get();
    const c10::StreamGuard guard(stream);
    const StagingSlot& staging = staging_[slot];
    staging.block->pin();
    int64_t position = bytes.data() - static_cast<const std::byte*>(staging.tensor.const_data_ptr());
    for (const engine::Segment& segment : segments) {
      const int64_t size = static_cast<int64_t>(segment.size);
      const DeviceTarget& target = targets_[segment.target];
      const at::Tensor bytes = target.bytes.narrow(0, static_cast<int64_t>(segment.target_offset), size);
      bytes.copy_(staging.tensor.narrow(0, position, size), /*non_blocking=*/true);
      if (target.cipher != nullptr) {
        decrypters_.at(target.cipher).start(bytes, segment.file_offset, stream);
      }
      position += size;
    }
    events_[slot].record(stream);
  }

  bool is_done(size_t slot) override { return events_[slot].query(); }
  void wait(size_t slot) override { events_[slot].synchronize(); }

 private:
  std::vector<DeviceTarget> targets_;
  StagingMemory staging_;
  std::vector<c10::Event> events_;  // one a slot
  std::map<const engine::Cipher*, DeviceDecrypter> decrypters_;
  std::deque<CopyStream> streams_;  // last: until they have come to their ends, the device uses all of the above
};

}  // namespace

bool decrypts([[maybe_unused]] at::Device device) {
#ifdef VETURBO_WITH_CUDA
  return device.is_cuda();
#else
  return false;
#endif
}

uint64_t slot_size(const engine::Plan& plan) {
  uint64_t size = kSlotAlignment;
  for (const engine::Chunk& chunk : plan.chunks) {
    size = std::max(size, align_up(chunk.file_offset % kSlotAlignment + chunk.size, kSlotAlignment));
  }
  return size;
}

std::unique_ptr<engine::ChunkSink> make_device_sink(at::Device device, std::vector<DeviceTarget> targets, size_t num_chunks,
                                                    uint64_t slot_bytes, int num_threads, uint64_t max_staging_bytes,
                                                    Pinning pinning, const OptionalHelper& helper) {
  const uint64_t most = std::max<uint64_t>(1, std::min<uint64_t>(max_staging_bytes / slot_bytes, num_chunks));
  const size_t num_slots = std::min<uint64_t>(most, static_cast<uint64_t>(std::max(num_threads, 1)) * kSlotsPerThread);
  auto copier = std::make_unique<DeviceCopier>(device, std::move(targets), num_slots, slot_bytes, pinning, helper);
  std::vector<std::span<std::byte>> slots = copier->slots();
  return std::make_unique<engine::StagingSink>(std::move(slots), std::move(copier));
}

int DeviceSource::max_workers(const engine::Plan& plan) {
  return static_cast<int>(std::max<uint64_t>(1, kMaxStagingBytes / slot_size(plan)));
}

DeviceSource::DeviceSource(std::vector<at::Tensor> targets, const engine::Plan& plan, int num_threads,
                           const OptionalHelper& helper)
    : targets_(std::move(targets)),
      staging_(device_of(targets_), static_cast<size_t>(std::max(num_threads, 1)), static_cast<int64_t>(slot_size(plan)),
               Pinning::kPinned, helper),
      streams_([](at::Device a, at::Device b) { return std::pair(a.type(), a.index()) < std::pair(b.type(), b.index()); }) {
  for (const at::Tensor& target : targets_) {
    if (!target.is_cpu()) {
      streams_.try_emplace(target.device(), target.device());
    }
  }
}

void DeviceSource::fetch(size_t worker, const engine::Chunk&, std::span<const engine::Segment> segments,
                         engine::ConstSpans& memory) {
  const c10::InferenceMode inference;
  std::vector<c10::Stream> used;
  int64_t position = 0;
  for (const engine::Segment& segment : segments) {
    const int64_t size = static_cast<int64_t>(segment.size);
    const at::Tensor bytes = targets_[segment.target].narrow(0, static_cast<int64_t>(segment.target_offset), size);
    if (bytes.is_cpu()) {
      memory.emplace_back(static_cast<const std::byte*>(bytes.const_data_ptr()), segment.size);
      continue;
    }
    const c10::Stream stream = streams_.at(bytes.device()).get();
    const c10::StreamGuard guard(stream);
    staging_[worker].block->pin();
    const at::Tensor slot = staging_[worker].tensor.narrow(0, position, size);
    slot.copy_(bytes, /*non_blocking=*/true);
    memory.emplace_back(static_cast<const std::byte*>(slot.const_data_ptr()), segment.size);
    position += size;
    if (std::find(used.begin(), used.end(), stream) == used.end()) {
      used.push_back(stream);
    }
  }
  for (const c10::Stream& stream : used) {
    c10::Event copied(stream.device_type());
    copied.record(stream);
    copied.synchronize();
  }
}

}  // namespace veturbo
