#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/mapped_region.h"
#include "engine/job.h"
#include "engine/plan.h"
#include "engine/strided.h"
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

// The source of a save from host memory: bytes are written from where they are. A tensor that is not contiguous becomes so one
// chunk at a time, in a buffer of the worker's.
class HostSource final : public ChunkSource {
 public:
  // One a target, in the plan's numbering.
  HostSource(std::vector<StridedMemory> targets, const Plan& plan, int num_threads);

  void fetch(size_t worker, const Chunk& chunk, std::span<const Segment> segments, ConstSpans& memory) override;

 private:
  std::vector<StridedMemory> targets_;
  uint64_t buffer_bytes_;
  std::vector<MappedRegion> buffers_;  // one a worker
};

// One worker of a save: takes runs of the plan, which are what the job hands out here, until there are none and writes them. The
// plan's ranges must leave no gap.
void save_chunks(Job& job, size_t worker, storage::WritableFile& file, const Plan& plan, ChunkSource& source);

}  // namespace veturbo::engine
