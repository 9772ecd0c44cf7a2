#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace veturbo::engine {

// Where a tensor's elements are, contiguous or in any other order.
struct StridedMemory {
  const std::byte* data;
  uint64_t item_size;            // bytes of an element: 1, 2, 4 or 8
  std::vector<int64_t> sizes;    // none: the memory is contiguous
  std::vector<int64_t> strides;  // in bytes

  bool is_contiguous() const { return sizes.empty(); }
};

// Fills `out` with the bytes from `begin` on that the tensor has once it is contiguous, which need not begin or end with an
// element. Not for memory that is.
void copy_contiguous(const StridedMemory& memory, uint64_t begin, std::span<std::byte> out);

}  // namespace veturbo::engine
