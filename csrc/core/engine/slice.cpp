#include "engine/slice.h"

#include <algorithm>

#include "base/error.h"

namespace veturbo::engine {

namespace {

// Whether each dimension's elements lie wholly behind each other, the last dimension's nearest, and all in the tensor.
bool is_in_order(const View& view, uint64_t num_elements) {
  uint64_t extent = 1;  // from the first element of a dimension to behind its last
  for (size_t i = view.sizes.size(); i-- > 0;) {
    const uint64_t size = view.sizes[i];
    if (size <= 1) {
      continue;
    }
    const uint64_t stride = view.strides[i];
    if (stride < extent || size - 1 > num_elements / stride) {
      return false;
    }
    extent += (size - 1) * stride;
  }
  return extent <= num_elements && view.offset <= num_elements - extent;
}

}  // namespace

SlicePlan plan_slice(const View& view, uint64_t num_elements, uint64_t item_bytes, uint64_t max_gap) {
  const std::vector<uint64_t>& sizes = view.sizes;
  if (view.strides.size() != sizes.size()) {
    throw Error(ErrorKind::kInvalidArgument, "a view needs as many strides as sizes");
  }
  SlicePlan plan;
  plan.strides.resize(sizes.size(), 1);
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) {
    return plan;
  }
  if (!is_in_order(view, num_elements)) {
    throw Error(ErrorKind::kInvalidArgument, "a view must be in the tensor, in the order of its elements");
  }

  uint64_t num_blocks = 1;
  for (const uint64_t size : sizes) {
    num_blocks *= size;
  }
  // From the last dimension on, as long as its elements are near enough to each other, a block holds them all.
  plan.block_size = item_bytes;
  size_t outer = sizes.size();  // dimensions that are left
  for (; outer > 0; --outer) {
    const uint64_t size = sizes[outer - 1];
    const uint64_t step = view.strides[outer - 1] * item_bytes;
    if (size > 1) {
      if (step - plan.block_size > max_gap && num_blocks <= kMaxBlocks) {
        break;
      }
      plan.is_dense = plan.is_dense && step == plan.block_size;
      plan.block_size += (size - 1) * step;
      plan.strides[outer - 1] = view.strides[outer - 1];
    }
    num_blocks /= size;
  }

  uint64_t stride = plan.block_size / item_bytes;
  for (size_t i = outer; i-- > 0;) {
    plan.strides[i] = stride;
    stride *= sizes[i];
  }
  plan.block_offsets.reserve(num_blocks);
  plan.block_offsets = {view.offset * item_bytes};
  for (size_t i = 0; i < outer; ++i) {
    // Each block so far stands for all elements of this dimension.
    std::vector<uint64_t> offsets;
    offsets.reserve(num_blocks);
    for (const uint64_t offset : plan.block_offsets) {
      for (uint64_t j = 0; j < sizes[i]; ++j) {
        offsets.push_back(offset + j * view.strides[i] * item_bytes);
      }
    }
    plan.block_offsets = std::move(offsets);
  }
  return plan;
}

}  // namespace veturbo::engine
