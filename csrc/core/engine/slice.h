#pragma once

#include <cstdint>
#include <vector>

// Which bytes of a tensor in a file to read for a part of it.
namespace veturbo::engine {

// A part of a contiguous tensor as PyTorch's basic indexing makes it: a view of it, in elements.
struct View {
  uint64_t offset;
  std::vector<uint64_t> sizes;
  std::vector<uint64_t> strides;
};

// A view as a number of blocks, all of one size, in the order of the file. Read one behind the other into memory, the blocks hold
// the view's elements at `strides` from their first one on, with or without others between them.
struct SlicePlan {
  uint64_t block_size = 0;              // bytes
  std::vector<uint64_t> block_offsets;  // bytes from the tensor's first
  std::vector<uint64_t> strides;        // elements; one a dimension
  bool is_dense = true;                 // the blocks hold nothing else
};

// More blocks than this would take longer to keep account of than to read what is between them.
constexpr uint64_t kMaxBlocks = uint64_t{1} << 20;

// Elements that are at most `max_gap` bytes apart are in one block. Throws Error(kInvalidArgument) for a view that goes beyond
// the tensor's `num_elements`, or in another order than theirs.
SlicePlan plan_slice(const View& view, uint64_t num_elements, uint64_t item_bytes, uint64_t max_gap);

}  // namespace veturbo::engine
