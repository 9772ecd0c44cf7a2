#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "engine/save.h"

namespace veturbo::engine {

// The source of a save that begins before some of its bytes are known.
class LateSource final : public ChunkSource {
 public:
  // `is_late` has an entry for each target. Runs of the plan that hold bytes of late ones are moved to its end.
  LateSource(std::unique_ptr<ChunkSource> source, std::vector<bool> is_late, Plan& plan);

  // All bytes are there. Until then workers wait in fetch() where they come to late ones; the thread that made the source, which
  // runs a job for which the system has no other, fails there.
  void ready();

  void fetch(size_t worker, const Chunk& chunk, std::span<const Segment> segments, ConstSpans& memory) override;

 private:
  bool any_late(std::span<const Segment> segments) const;

  std::unique_ptr<ChunkSource> source_;
  std::vector<bool> is_late_;
  std::atomic<bool> is_ready_ = false;
  const std::thread::id maker_ = std::this_thread::get_id();
};

}  // namespace veturbo::engine
