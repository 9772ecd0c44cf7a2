#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// What is to be moved, worked out before any thread starts. A plan knows bytes of a file and numbered targets, neither files nor
// memory.
namespace veturbo::engine {

// Where a target's bytes stand in the file. A target is a tensor, or the header of a file that is written.
struct FileRange {
  uint64_t offset;
  uint64_t size;
};

// Bytes that are contiguous both in the file and in one target.
struct Segment {
  uint64_t file_offset;
  uint64_t size;
  uint32_t target;
  uint64_t target_offset;
};

// Bytes that are contiguous in the file: one step of a worker. Small tensors share a chunk, a large one spans many.
struct Chunk {
  uint64_t file_offset;
  uint64_t size;
  uint32_t first_segment;
  uint32_t num_segments;
};

struct Plan {
  std::vector<Segment> segments;
  std::vector<Chunk> chunks;  // in the order of the file
  uint64_t bytes = 0;

  std::span<const Segment> segments_of(const Chunk& chunk) const {
    return std::span(segments).subspan(chunk.first_segment, chunk.num_segments);
  }
};

// Cuts the ranges at the multiples of `chunk_size` (a power of two) in the file, so that each chunk but those beside a gap begins
// aligned. Ranges may come in any order and leave gaps, which are not read; they must not overlap. Empty ones take no part.
Plan make_plan(std::span<const FileRange> targets, uint64_t chunk_size);

// Throws Error(kInvalidArgument) for a number of threads that nobody means: below 0, which stands for as many as pay, or absurd.
void check_num_threads(int64_t requested);

// How many workers to give a plan: `requested`, or for 0 what the storage's parallelism and the amount of work make of it.
int choose_num_threads(int64_t requested, const Plan& plan, int parallelism);

// Plans up to this size are carried out on the calling thread: starting one would take longer.
constexpr uint64_t kInlineBytes = uint64_t{4} << 20;

}  // namespace veturbo::engine
