#include "engine/plan.h"

#include <algorithm>

#include "base/concat.h"
#include "base/error.h"

namespace veturbo::engine {

namespace {

// A worker below this many bytes, or below one chunk, costs more to start than it brings.
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

// Where an offset of the file stands among the cuts.
struct Place {
  uint64_t run_begin;
  uint64_t chunk_end;
};

Place place_of(uint64_t offset, const Cuts& cuts) {
  const uint64_t at = offset + cuts.run_shift;
  const uint64_t run_begin = cuts.run_size == 0 ? 0 : at - at % cuts.run_size;
  const uint64_t chunk_begin = at - (at - run_begin) % cuts.chunk_size;
  uint64_t chunk_end = chunk_begin + cuts.chunk_size;
  if (cuts.run_size != 0) {
    chunk_end = std::min(chunk_end, run_begin + cuts.run_size);
  }
  return {run_begin, chunk_end - cuts.run_shift};
}

}  // namespace

Plan make_plan(std::span<const FileRange> targets, const Cuts& cuts) {
  Plan plan;
  plan.chunk_size = cuts.chunk_size;
  plan.segments.reserve(targets.size());
  uint64_t filled = 0;     // of the chunk that is being filled: how far it has come
  uint64_t chunk_end = 0;  // how far it may come
  uint64_t run_begin = 0;  // of its run
  for (const uint32_t target : file_order(targets)) {
    const FileRange& range = targets[target];
    for (uint64_t done = 0; done < range.size;) {
      const uint64_t offset = range.offset + done;
      const Place place = place_of(offset, cuts);
      const uint64_t size = std::min(range.size - done, place.chunk_end - offset);
      if (plan.chunks.empty() || offset - filled > cuts.max_gap || place.chunk_end != chunk_end) {
        plan.chunks.push_back({offset, 0, static_cast<uint32_t>(plan.segments.size()), 0});
        if (plan.runs.empty() || cuts.run_size == 0 || place.run_begin != run_begin) {
          plan.runs.push_back({static_cast<uint32_t>(plan.chunks.size() - 1), 0});
        }
        run_begin = place.run_begin;
        chunk_end = place.chunk_end;
        ++plan.runs.back().num_chunks;
      }
      plan.segments.push_back({offset, size, target, done});
      Chunk& chunk = plan.chunks.back();
      chunk.size += size;
      ++chunk.num_segments;
      filled = offset + size;
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
  const uint64_t useful = std::max<uint64_t>(1, plan.runs.size());
  if (requested > 0) {
    return static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(requested), useful));
  }
  const uint64_t bytes_per_thread = std::clamp<uint64_t>(plan.chunk_size, 1, kMinBytesPerThread);
  const uint64_t worthwhile = std::max<uint64_t>(1, plan.bytes / bytes_per_thread);
  return static_cast<int>(std::min({static_cast<uint64_t>(parallelism), useful, worthwhile}));
}

}  // namespace veturbo::engine
