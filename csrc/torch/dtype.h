#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "format/dtype.h"

// PyTorch's element types and the format's. They differ in one thing: float4_e2m1fn_x2 holds two elements, so that the last
// dimension of F4 is twice that of the tensor.
namespace veturbo {

// Nothing for a type that the other side does not have: F6 in PyTorch, complex128 and the quantized types, say, in the format.
std::optional<at::ScalarType> to_scalar_type(format::DType dtype);
std::optional<format::DType> to_dtype(at::ScalarType type);

// A file's shape in PyTorch's integers. Throws Error(kFormat) where they are too small, without naming the tensor.
std::vector<int64_t> to_sizes(std::span<const uint64_t> shape);
// The tensor's shape. Throws Error(kFormat) for one that PyTorch cannot have, likewise.
std::vector<int64_t> to_tensor_sizes(format::DType dtype, std::span<const uint64_t> shape);
// Throws Error(kInvalidArgument) for a scalar of F4.
std::vector<uint64_t> to_file_shape(format::DType dtype, at::IntArrayRef sizes);

}  // namespace veturbo
