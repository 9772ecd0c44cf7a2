#include "engine/plan.h"

#include <algorithm>

#include "base/align.h"
#include "base/concat.h"
#include "base/error.h"

namespace veturbo::engine {

namespace {

// A worker below this many bytes costs more to start than it brings.
constexpr uint64_t kMinBytesPerThread = uint64_t{8} << 20;

std::vector<uint32_t> file_order(std::span<const FileRange> targets) {
  std::vector<uint32_t> order;
  order.reserve(targets.size());
  for (uint32_t i = 0; i < targets.size(); ++i) {
    if (targets[i].size > 0) {
      order.push_back(i);
    }
  }
  const auto before = [&](uint32_t a, uint32_t b) { return targets[a].offset < targets[b].offset; };
  if (!std::is_sorted(order.begin(), order.end(), before)) {
    std::sort(order.begin(), order.end(), before);
  }
  return order;
}

}  // namespace

Plan make_plan(std::span<const FileRange> targets, uint64_t chunk_size) {
  Plan plan;
  plan.segments.reserve(targets.size());
  uint64_t chunk_end = 0;  // of the chunk that is being filled: how far it has come
  for (const uint32_t target : file_order(targets)) {
    const FileRange& range = targets[target];
    for (uint64_t done = 0; done < range.size;) {
      const uint64_t offset = range.offset + done;
      const uint64_t boundary = align_down(offset, chunk_size) + chunk_size;
      const uint64_t size = std::min(range.size - done, boundary - offset);
      if (plan.chunks.empty() || offset != chunk_end || offset % chunk_size == 0) {
        plan.chunks.push_back({offset, 0, static_cast<uint32_t>(plan.segments.size()), 0});
      }
      plan.segments.push_back({offset, size, target, done});
      Chunk& chunk = plan.chunks.back();
      chunk.size += size;
      ++chunk.num_segments;
      chunk_end = offset + size;
      plan.bytes += size;
      done += size;
    }
  }
  return plan;
}

void check_num_threads(int64_t requested) {
  constexpr int64_t kMost = 32767;
  if (requested < 0 || requested > kMost) {
    throw Error(ErrorKind::kInvalidArgument,
                concat("num_threads is ", requested, ": give 0 for as many as pay, or a number up to ", kMost));
  }
}

int choose_num_threads(int64_t requested, const Plan& plan, int parallelism) {
  const uint64_t useful = std::max<uint64_t>(1, plan.chunks.size());
  if (requested > 0) {
    return static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(requested), useful));
  }
  const uint64_t worthwhile = std::max<uint64_t>(1, plan.bytes / kMinBytesPerThread);
  return static_cast<int>(std::min({static_cast<uint64_t>(parallelism), useful, worthwhile}));
}

}  // namespace veturbo::engine
