#include "torch/accelerator.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
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

// A stream of its own for the copies to and from a device, behind all that the caller has queued there: memory that the allocator
// hands out may still be in use by earlier work of the caller's stream, and tensors to be saved may still be computed on it.
c10::Stream make_copy_stream(at::Device device) {
  const c10::impl::VirtualGuardImpl backend(device.type());
  const c10::Stream copies = backend.getStreamFromGlobalPool(device, /*isHighPriority=*/false);
  c10::Event event(device.type());
  event.record(backend.getStream(device));
  event.block(copies);
  return copies;
}

void synchronize(const c10::Stream& stream) noexcept {
  try {
    stream.synchronize();
  } catch (...) {
    // A device that has failed copies no more.
  }
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
      : targets_(std::move(targets)),
        stream_(make_copy_stream(device)),
        staging_(static_cast<int64_t>(num_slots * slot_bytes), pinning, helper) {
    for (size_t i = 0; i < num_slots; ++i) {
      events_.emplace_back(device.type());
    }
    for (const DeviceTarget& target : targets_) {
      if (target.cipher != nullptr && !decrypters_.contains(target.cipher)) {
        decrypters_.emplace(target.cipher, *target.cipher);
      }
    }
  }

  ~DeviceCopier() override { synchronize(stream_); }

  std::byte* staging() const { return static_cast<std::byte*>(staging_.tensor().data_ptr()); }

  void start(size_t slot, std::span<const engine::Segment> segments, std::span<const std::byte> bytes) override {
    // Worker threads do not have the caller's modes; in this one tensors made under any of them may be written.
    const c10::InferenceMode inference;
    const c10::StreamGuard guard(stream_);
    int64_t position = bytes.data() - staging();
    for (const engine::Segment& segment : segments) {
      const int64_t size = static_cast<int64_t>(segment.size);
      const DeviceTarget& target = targets_[segment.target];
      const at::Tensor bytes = target.bytes.narrow(0, static_cast<int64_t>(segment.target_offset), size);
      bytes.copy_(staging_.tensor().narrow(0, position, size), /*non_blocking=*/true);
      if (target.cipher != nullptr) {
        decrypters_.at(target.cipher).start(bytes, segment.file_offset, stream_);
      }
      position += size;
    }
    events_[slot].record(stream_);
  }

  bool is_done(size_t slot) override { return events_[slot].query(); }
  void wait(size_t slot) override { events_[slot].synchronize(); }

 private:
  std::vector<DeviceTarget> targets_;
  c10::Stream stream_;
  StagingMemory staging_;
  std::vector<c10::Event> events_;  // one a slot
  std::map<const engine::Cipher*, DeviceDecrypter> decrypters_;
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
  std::vector<std::span<std::byte>> slots;
  slots.reserve(num_slots);
  for (size_t i = 0; i < num_slots; ++i) {
    slots.emplace_back(copier->staging() + i * slot_bytes, slot_bytes);
  }
  return std::make_unique<engine::StagingSink>(std::move(slots), std::move(copier));
}

int DeviceSource::max_workers(const engine::Plan& plan) {
  return static_cast<int>(std::max<uint64_t>(1, kMaxStagingBytes / slot_size(plan)));
}

DeviceSource::DeviceSource(std::vector<at::Tensor> targets, const engine::Plan& plan, int num_threads,
                           const OptionalHelper& helper)
    : targets_(std::move(targets)),
      streams_([](at::Device a, at::Device b) { return std::pair(a.type(), a.index()) < std::pair(b.type(), b.index()); }),
      slot_bytes_(static_cast<int64_t>(slot_size(plan))),
      staging_(slot_bytes_ * std::max(num_threads, 1), Pinning::kPinned, helper) {
  for (const at::Tensor& target : targets_) {
    if (!target.is_cpu() && !streams_.contains(target.device())) {
      streams_.emplace(target.device(), make_copy_stream(target.device()));
    }
  }
}

DeviceSource::~DeviceSource() {
  for (const auto& [device, stream] : streams_) {
    synchronize(stream);
  }
}

void DeviceSource::fetch(size_t worker, const engine::Chunk&, std::span<const engine::Segment> segments,
                         engine::ConstSpans& memory) {
  const c10::InferenceMode inference;
  std::vector<c10::Stream> used;
  int64_t position = static_cast<int64_t>(worker) * slot_bytes_;
  for (const engine::Segment& segment : segments) {
    const int64_t size = static_cast<int64_t>(segment.size);
    const at::Tensor bytes = targets_[segment.target].narrow(0, static_cast<int64_t>(segment.target_offset), size);
    if (bytes.is_cpu()) {
      memory.emplace_back(static_cast<const std::byte*>(bytes.const_data_ptr()), segment.size);
      continue;
    }
    const c10::Stream stream = streams_.at(bytes.device());
    const c10::StreamGuard guard(stream);
    const at::Tensor slot = staging_.tensor().narrow(0, position, size);
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
