#include "torch/device_tensors.h"

#include <ATen/Functions.h>

#include <cstddef>
#include <cstdint>

#include "base/align.h"

#ifdef VETURBO_WITH_CUDA
#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace veturbo {

namespace {

#ifdef VETURBO_WITH_CUDA

// PyTorch's allocator for CUDA asks the driver for nearly every tensor of more than 1 MiB by itself, which takes 40 us each
// (H200); smaller ones share what it asks for. What it has once been given, it cuts into pieces: so it gets the memory of several
// tensors at once. Not of all, as it can return such a block to the driver only when each tensor in it has died.
constexpr uint64_t kSmallBytes = uint64_t{1} << 20;
constexpr uint64_t kBlockBytes = uint64_t{512} << 20;
constexpr uint64_t kAlignment = 512;  // of its pieces

// Whether the allocator would have to ask for this much, and would cut it.
bool would_cut(uint64_t bytes, at::Device device) {
  try {
    at::globalContext().lazyInitDevice(device.type());
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const int64_t kept = stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
    constexpr int64_t kNoLimit = -1;
    return stats.max_split_size == kNoLimit && kept < static_cast<int64_t>(bytes);
  } catch (const c10::Error&) {
    return false;  // another allocator has been put in its place
  }
}

void get_block(uint64_t bytes, at::Device device) {
  if (!would_cut(bytes, device)) {
    return;
  }
  try {
    at::empty({static_cast<int64_t>(bytes)}, at::TensorOptions(at::kByte).device(device));  // given back at once
  } catch (const c10::OutOfMemoryError&) {
    // The tensors may fit one by one.
  }
}

uint64_t bytes_in_block(const TensorSpec& spec) {
  const uint64_t bytes = num_bytes(spec);
  return bytes > kSmallBytes ? align_up(bytes, kAlignment) : 0;
}

// Has the allocator get one block for the first of these tensors; returns how many they are.
size_t get_block_for_first(std::span<const TensorSpec> specs, at::Device device) {
  uint64_t bytes = 0;
  size_t in_block = 0;
  size_t count = 0;
  for (; count < specs.size() && (in_block == 0 || bytes + bytes_in_block(specs[count]) <= kBlockBytes); ++count) {
    bytes += bytes_in_block(specs[count]);
    in_block += bytes_in_block(specs[count]) > 0 ? 1 : 0;
  }
  if (in_block > 1) {
    get_block(bytes, device);
  }
  return count;
}

#else

size_t get_block_for_first(std::span<const TensorSpec> specs, at::Device) {
  return specs.size();
}

#endif

}  // namespace

std::vector<at::Tensor> empty_on_device(std::span<const TensorSpec> specs, at::Device device) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(specs.size());
  while (!specs.empty()) {
    const size_t count = device.is_cuda() ? get_block_for_first(specs, device) : specs.size();
    for (const TensorSpec& spec : specs.first(count)) {
      tensors.push_back(at::empty(spec.sizes, at::TensorOptions(spec.type).device(device)));
    }
    specs = specs.subspan(count);
  }
  return tensors;
}

}  // namespace veturbo
