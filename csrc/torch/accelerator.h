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
#include "torch/io_helper.h"

// Loads into and saves from memory that only a device reaches, for every device that PyTorch has streams, events and copies for.
namespace veturbo {

// Whether the device decrypts what it is sent; otherwise the CPU does that before it sends it.
bool decrypts(at::Device device);

// The sink of the part of a load that goes to one device. `targets` are the plan's, as bytes (see bytes_of); those of other
// devices may be undefined. The staging memory is that of 2 chunks a worker, at most `max_staging_bytes`.
// With a cipher, which only a device that decrypts() takes, what comes is the file's ciphertext.
std::unique_ptr<engine::ChunkSink> make_device_sink(at::Device device, std::vector<at::Tensor> targets, const engine::Plan& plan,
                                                    int num_threads, uint64_t max_staging_bytes, Pinning pinning,
                                                    const OptionalHelper& helper, const engine::Cipher* cipher);

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
  ~DeviceSource() override;

  void fetch(size_t worker, const engine::Chunk& chunk, std::span<const engine::Segment> segments,
             engine::ConstSpans& memory) override;

 private:
  std::vector<at::Tensor> targets_;
  std::map<at::Device, c10::Stream, bool (*)(at::Device, at::Device)> streams_;
  int64_t slot_bytes_;
  StagingMemory staging_;
};

}  // namespace veturbo
