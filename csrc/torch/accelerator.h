#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <map>
#include <memory>
#include <vector>

#include "engine/cipher.h"
#include "engine/save.h"
#include "engine/staging.h"
#include "torch/copy_stream.h"
#include "torch/io_helper.h"
#include "torch/staging_memory.h"

// Loads into and saves from memory that only a device reaches, for every device that PyTorch has streams, events and copies for.
namespace veturbo {

// Whether the device decrypts what it is sent; otherwise the CPU does that before it sends it.
bool decrypts(at::Device device);

// Memory of a device that a load fills.
struct DeviceTarget {
  at::Tensor bytes;              // of dtype uint8
  const engine::Cipher* cipher;  // of what comes, where that is a file's ciphertext; only for a device that decrypts()
};

// The sink of the part of a load that goes to one device, of `num_chunks` chunks, each of which fits `slot_bytes`. The staging
// memory is that of 2 chunks a worker, at most `max_staging_bytes`.
std::unique_ptr<engine::ChunkSink> make_device_sink(at::Device device, std::vector<DeviceTarget> targets, size_t num_chunks,
                                                    uint64_t slot_bytes, int num_threads, uint64_t max_staging_bytes,
                                                    Pinning pinning, const OptionalHelper& helper);

// Staging memory that any chunk of a plan fits, as it is best aligned.
uint64_t slot_size(const engine::Plan& plan);

// Of a whole load or save, whatever the file's size.
constexpr uint64_t kMaxStagingBytes = uint64_t{256} << 20;

// The source of a save of which some tensors are on devices: the workers' chunks come by way of one staging slot each, so that no
// second copy of the model is ever on the host.
class DeviceSource final : public engine::ChunkSource {
 public:
  // More workers would need more than kMaxStagingBytes.
  static int max_workers(const engine::Plan& plan);

  // One a target, as bytes.
  DeviceSource(std::vector<at::Tensor> targets, const engine::Plan& plan, int num_threads, const OptionalHelper& helper);

  void fetch(size_t worker, const engine::Chunk& chunk, std::span<const engine::Segment> segments,
             engine::ConstSpans& memory) override;

 private:
  std::vector<at::Tensor> targets_;
  StagingMemory staging_;
  // Last: until they have come to their ends, the devices use the above.
  std::map<at::Device, CopyStream, bool (*)(at::Device, at::Device)> streams_;
};

}  // namespace veturbo
