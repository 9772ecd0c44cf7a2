#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace veturbo::format {

// The element types that the safetensors format has, in the order that its writers sort by (ascending alignment; a file holds
// them from the last to the first, so that each tensor is aligned for its type when the data's start is).
enum class DType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

constexpr size_t kNumDTypes = 22;

// The name in the file, as "F32".
std::string_view dtype_name(DType dtype);

// Nothing when the format has no type of that name.
std::optional<DType> dtype_from_name(std::string_view name);

// Bits of one element: F4 and F6 do not fill bytes.
int dtype_bits(DType dtype);

}  // namespace veturbo::format
