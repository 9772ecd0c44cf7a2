#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "base/mapped_region.h"

namespace veturbo {

// What happens to a tensor's pages when it dies before the region that it shares with others.
enum class Reclaim { kKeepPages, kDiscardPages };

// A CPU tensor with a storage of its own (exactly its bytes, at offset 0) over part of a region that lives until the last such
// tensor has died. The bytes must be aligned for the type.
at::Tensor tensor_over(const std::shared_ptr<MappedRegion>& region, uint64_t offset, uint64_t num_bytes, at::IntArrayRef sizes,
                       at::ScalarType type, Reclaim reclaim);

// Throws Error(kInvalidArgument) for what is no contiguous tensor of uint8.
void check_buffer(const at::Tensor& buffer);

// The bytes of a dense contiguous tensor as a tensor of bytes over the same storage.
at::Tensor bytes_of(const at::Tensor& tensor);

}  // namespace veturbo
