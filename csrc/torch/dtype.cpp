#include "torch/dtype.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "base/error.h"

namespace veturbo {

namespace {

using format::DType;

constexpr std::array<std::pair<DType, at::ScalarType>, 20> kTypes = {{
    {DType::kBool, at::kBool},
    {DType::kF4, at::kFloat4_e2m1fn_x2},
    {DType::kU8, at::kByte},
    {DType::kI8, at::kChar},
    {DType::kF8E5M2, at::kFloat8_e5m2},
    {DType::kF8E4M3, at::kFloat8_e4m3fn},
    {DType::kF8E8M0, at::kFloat8_e8m0fnu},
    {DType::kF8E4M3Fnuz, at::kFloat8_e4m3fnuz},
    {DType::kF8E5M2Fnuz, at::kFloat8_e5m2fnuz},
    {DType::kI16, at::kShort},
    {DType::kU16, at::kUInt16},
    {DType::kF16, at::kHalf},
    {DType::kBF16, at::kBFloat16},
    {DType::kI32, at::kInt},
    {DType::kU32, at::kUInt32},
    {DType::kF32, at::kFloat},
    {DType::kC64, at::kComplexFloat},
    {DType::kF64, at::kDouble},
    {DType::kI64, at::kLong},
    {DType::kU64, at::kUInt64},
}};

// What PyTorch counts as the strides of a contiguous tensor: of an empty one, too, whose other dimensions may be anything.
void check_strides(const std::vector<int64_t>& sizes) {
  int64_t stride = 1;
  for (size_t i = sizes.size(); i > 1; --i) {
    if (__builtin_mul_overflow(stride, std::max<int64_t>(sizes[i - 1], 1), &stride)) {
      throw Error(ErrorKind::kFormat, "its dimensions are larger than PyTorch's: a stride would overflow 64 bits");
    }
  }
}

}  // namespace

std::optional<at::ScalarType> to_scalar_type(format::DType dtype) {
  for (const auto& [ours, theirs] : kTypes) {
    if (ours == dtype) {
      return theirs;
    }
  }
  return std::nullopt;
}

std::optional<format::DType> to_dtype(at::ScalarType type) {
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs == type) {
      return ours;
    }
  }
  return std::nullopt;
}

std::vector<int64_t> to_sizes(std::span<const uint64_t> shape) {
  std::vector<int64_t> sizes;
  sizes.reserve(shape.size());
  for (const uint64_t dimension : shape) {
    // Possible without overflow of the product only where another dimension is 0.
    if (dimension > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      throw Error(ErrorKind::kFormat, "a dimension is larger than PyTorch's 2^63 - 1");
    }
    sizes.push_back(static_cast<int64_t>(dimension));
  }
  return sizes;
}

std::vector<int64_t> to_tensor_sizes(format::DType dtype, std::span<const uint64_t> shape) {
  std::vector<int64_t> sizes = to_sizes(shape);
  if (dtype == DType::kF4) {
    if (sizes.empty() || sizes.back() % 2 != 0) {
      throw Error(ErrorKind::kFormat, "PyTorch has F4 only in pairs: the last dimension must be even");
    }
    sizes.back() /= 2;
  }
  check_strides(sizes);
  return sizes;
}

std::vector<uint64_t> to_file_shape(format::DType dtype, at::IntArrayRef sizes) {
  std::vector<uint64_t> shape(sizes.begin(), sizes.end());
  if (dtype == DType::kF4) {
    if (shape.empty()) {
      throw Error(ErrorKind::kInvalidArgument, "a scalar of float4_e2m1fn_x2 has no shape in the format: give it one dimension");
    }
    shape.back() *= 2;
  }
  return shape;
}

}  // namespace veturbo
