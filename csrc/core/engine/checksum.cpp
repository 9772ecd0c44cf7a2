#include "engine/checksum.h"

#include "base/crc32.h"

namespace veturbo::engine {

void checksum_chunks(Job& job, size_t worker, const Plan& plan, ChunkSource& source, std::span<uint32_t> of_segments) {
  ConstSpans memory;
  while (const auto index = job.next_chunk()) {
    const Chunk& chunk = plan.chunks[*index];
    memory.clear();
    source.fetch(worker, chunk, plan.segments_of(chunk), memory);
    for (size_t i = 0; i < memory.size(); ++i) {
      of_segments[chunk.first_segment + i] = crc32(memory[i]);
    }
    job.add_done(chunk.size);
  }
}

std::vector<uint32_t> combine_checksums(const Plan& plan, std::span<const uint32_t> of_segments, size_t num_targets) {
  std::vector<uint32_t> checksums(num_targets);
  for (size_t i = 0; i < plan.segments.size(); ++i) {
    const Segment& segment = plan.segments[i];
    uint32_t& checksum = checksums[segment.target];
    checksum = segment.target_offset == 0 ? of_segments[i] : combined_crc32(checksum, of_segments[i], segment.size);
  }
  return checksums;
}

}  // namespace veturbo::engine
