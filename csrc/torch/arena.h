#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "engine/plan.h"

// The one piece of memory that a load's tensors on the CPU have parts of.
namespace veturbo {

// Where in an arena, which begins at a page, the bytes of each range of a file go, and how large it is.
struct ArenaLayout {
  std::vector<uint64_t> offsets;
  uint64_t size = 0;
};

// `ranges` in the order of the file.
ArenaLayout lay_out_arena(std::span<const engine::FileRange> ranges);

// Tensors of bytes for these ranges of a file, in an arena on the CPU, or each by itself on another device.
std::vector<at::Tensor> buffers_for(std::span<const engine::FileRange> ranges, at::Device device);

}  // namespace veturbo
