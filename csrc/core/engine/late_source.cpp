#include "engine/late_source.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/error.h"

namespace veturbo::engine {

LateSource::LateSource(std::unique_ptr<ChunkSource> source, std::vector<bool> is_late, Plan& plan)
    : source_(std::move(source)), is_late_(std::move(is_late)) {
  std::stable_partition(plan.runs.begin(), plan.runs.end(), [&](const Run& run) {
    const std::span<const Chunk> chunks = plan.chunks_of(run);
    return std::none_of(chunks.begin(), chunks.end(), [&](const Chunk& chunk) { return any_late(plan.segments_of(chunk)); });
  });
}

void LateSource::ready() {
  is_ready_.store(true, std::memory_order_release);
  is_ready_.notify_all();
}

void LateSource::fetch(size_t worker, const Chunk& chunk, std::span<const Segment> segments, ConstSpans& memory) {
  if (any_late(segments)) {
    if (std::this_thread::get_id() == maker_) {
      throw Error::from_errno(EAGAIN, "cannot start a thread");
    }
    is_ready_.wait(false, std::memory_order_acquire);
  }
  source_->fetch(worker, chunk, segments, memory);
}

bool LateSource::any_late(std::span<const Segment> segments) const {
  return std::any_of(segments.begin(), segments.end(), [&](const Segment& segment) { return is_late_[segment.target]; });
}

}  // namespace veturbo::engine
