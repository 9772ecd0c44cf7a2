#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/job.h"
#include "engine/plan.h"
#include "storage/writable_file.h"

namespace veturbo::engine {

using ConstSpans = std::vector<std::span<const std::byte>>;

// Where a save's bytes come from. Called by many workers at once, by each with its own number.
class ChunkSource {
 public:
  virtual ~ChunkSource() = default;

  // Gives, for each of the chunk's segments, its bytes: valid until the same worker asks again.
  virtual void fetch(size_t worker, const Chunk& chunk, std::span<const Segment> segments, ConstSpans& memory) = 0;
};

// The source of a save from host memory: bytes are written from where they are.
class HostSource final : public ChunkSource {
 public:
  // One a target, in the plan's numbering.
  explicit HostSource(std::vector<const std::byte*> targets) : targets_(std::move(targets)) {}

  void fetch(size_t worker, const Chunk& chunk, std::span<const Segment> segments, ConstSpans& memory) override;

 private:
  std::vector<const std::byte*> targets_;
};

// One worker of a save: takes runs of the plan, which are what the job hands out here, until there are none and writes them. The
// plan's ranges must leave no gap.
void save_chunks(Job& job, size_t worker, storage::WritableFile& file, const Plan& plan, ChunkSource& source);

}  // namespace veturbo::engine
