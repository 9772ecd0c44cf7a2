#include "torch/arena.h"

#include <ATen/Functions.h>

#include <memory>

#include "base/align.h"
#include "base/mapped_region.h"
#include "torch/tensor_memory.h"

namespace veturbo {

namespace {

constexpr uint64_t kTensorAlignment = 64;  // as PyTorch's own CPU allocator

// Where in an arena to put a tensor, at `at` or a little after.
//
// The kernel copies what it reads with `rep movsb`, and AMD's Zen 3 does that at less than half its speed while the destination
// is up to 32 bytes ahead of the source within their pages.
uint64_t place(uint64_t at, uint64_t file_offset) {
  constexpr uint64_t kAliasing = 4096;
  const uint64_t offset = align_up(at, kTensorAlignment);
  const uint64_t ahead = (offset - file_offset) % kAliasing;
  return ahead > 0 && ahead < kTensorAlignment ? offset + kTensorAlignment : offset;
}

// Where the first tensor of a large arena goes: as far from a huge page as its bytes in the file, so that chunks of the file
// begin at huge pages too, or a little behind. A thread whose chunk begins before a huge page's end takes the page fault for the
// thread that fills the page, whose cache then has none of it: reading takes five percent longer.
uint64_t first_place(uint64_t file_offset, uint64_t num_bytes) {
  return num_bytes < kHugePageSize ? 0 : file_offset % kHugePageSize;
}

}  // namespace

ArenaLayout lay_out_arena(std::span<const engine::FileRange> ranges) {
  uint64_t num_bytes = 0;
  for (const engine::FileRange& range : ranges) {
    num_bytes += range.size;
  }
  ArenaLayout layout;
  layout.offsets.reserve(ranges.size());
  layout.size = ranges.empty() ? 0 : first_place(ranges.front().offset, num_bytes);
  for (const engine::FileRange& range : ranges) {
    layout.offsets.push_back(place(layout.size, range.offset));
    layout.size = layout.offsets.back() + range.size;
  }
  return layout;
}

std::vector<at::Tensor> buffers_for(std::span<const engine::FileRange> ranges, at::Device device) {
  std::vector<at::Tensor> buffers;
  buffers.reserve(ranges.size());
  if (!device.is_cpu()) {
    for (const engine::FileRange& range : ranges) {
      buffers.push_back(at::empty({static_cast<int64_t>(range.size)}, at::TensorOptions(at::kByte).device(device)));
    }
    return buffers;
  }
  const ArenaLayout layout = lay_out_arena(ranges);
  const auto arena = std::make_shared<MappedRegion>(MappedRegion::anonymous(layout.size));
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto size = static_cast<int64_t>(ranges[i].size);
    buffers.push_back(tensor_over(arena, layout.offsets[i], ranges[i].size, {size}, at::kByte, Reclaim::kDiscardPages));
  }
  return buffers;
}

}  // namespace veturbo
