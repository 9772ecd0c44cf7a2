#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/job.h"
#include "engine/plan.h"
#include "engine/save.h"

namespace veturbo::engine {

// One worker of a job that finds the CRC-32 of a plan's targets: takes chunks until there are none, and fills in the checksums of
// their segments, of which there are as many as the plan has segments.
void checksum_chunks(Job& job, size_t worker, const Plan& plan, ChunkSource& source, std::span<uint32_t> of_segments);

// Of the whole targets, once every segment has its own. An empty one's is 0.
std::vector<uint32_t> combine_checksums(const Plan& plan, std::span<const uint32_t> of_segments, size_t num_targets);

}  // namespace veturbo::engine
