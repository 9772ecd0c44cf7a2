#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "torch/model_reader.h"

namespace veturbo {

// Uninitialised tensors on a device, each a storage of its own.
std::vector<at::Tensor> empty_on_device(std::span<const TensorSpec> specs, at::Device device);

}  // namespace veturbo
