#include "torch/chunk_source.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/strided.h"
#include "torch/accelerator.h"
#include "torch/tensor_memory.h"

namespace veturbo {

namespace {

engine::StridedMemory memory_of(const at::Tensor& tensor) {
  const int64_t item_size = static_cast<int64_t>(tensor.itemsize());
  engine::StridedMemory memory = {
      .data = static_cast<const std::byte*>(tensor.const_data_ptr()), .item_size = tensor.itemsize(), .sizes = {}, .strides = {}};
  if (!tensor.is_contiguous()) {
    memory.sizes = tensor.sizes().vec();
    for (const int64_t stride : tensor.strides()) {
      memory.strides.push_back(stride * item_size);
    }
  }
  return memory;
}

}  // namespace

TensorSource make_source(std::span<const at::Tensor> tensors, const engine::Plan& plan, int workers,
                         const OptionalHelper& helper) {
  if (std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) { return tensor.is_cpu(); })) {
    std::vector<engine::StridedMemory> targets;
    targets.reserve(tensors.size());
    for (const at::Tensor& tensor : tensors) {
      targets.push_back(memory_of(tensor));
    }
    return {std::make_unique<engine::HostSource>(std::move(targets), plan, workers), workers};
  }
  workers = std::min(workers, DeviceSource::max_workers(plan));
  std::vector<at::Tensor> targets;
  targets.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    targets.push_back(bytes_of(tensor.contiguous()));
  }
  return {std::make_unique<DeviceSource>(std::move(targets), plan, workers, helper), workers};
}

}  // namespace veturbo
