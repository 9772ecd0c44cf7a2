#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>

#include "engine/plan.h"
#include "engine/save.h"
#include "torch/io_helper.h"

namespace veturbo {

// Where tensors' bytes come from, on whatever devices they are, and how many workers may ask for them.
struct TensorSource {
  std::unique_ptr<engine::ChunkSource> source;
  int workers;
};

// `workers` are as many as would be useful; 0 is the calling thread. The tensors outlive the source.
TensorSource make_source(std::span<const at::Tensor> tensors, const engine::Plan& plan, int workers,
                         const OptionalHelper& helper);

}  // namespace veturbo
