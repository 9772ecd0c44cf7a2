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

// Segments that follow each other in the file: one step of a worker. Small tensors share a chunk, a large one spans many.
struct Chunk {
  uint64_t file_offset;
  uint64_t size;  // of the segments, without what may lie between them
  uint32_t first_segment;
  uint32_t num_segments;
};

// Chunks that one worker is to take one after another.
struct Run {
  uint32_t first_chunk;
  uint32_t num_chunks;
};

struct Plan {
  uint64_t chunk_size = 0;
  std::vector<Segment> segments;
  std::vector<Chunk> chunks;  // in the order of the file
  std::vector<Run> runs;      // likewise, unless a save puts some last
  uint64_t bytes = 0;

  std::span<const Segment> segments_of(const Chunk& chunk) const {
    return std::span(segments).subspan(chunk.first_segment, chunk.num_segments);
  }
  std::span<const Chunk> chunks_of(const Run& run) const { return std::span(chunks).subspan(run.first_chunk, run.num_chunks); }
};

// Where a plan is cut.
struct Cuts {
  uint64_t chunk_size;
  uint64_t run_size = 0;   // a run is cut into chunks by itself; 0: each chunk is a run
  uint64_t run_shift = 0;  // so many bytes before the plan's first the first run begins
  uint64_t max_gap = 0;    // a chunk may go on behind a gap of up to so many bytes
};

// Cuts the ranges at multiples of the chunk's size in the file, or in the run, so that each chunk but those beside a gap begins
// aligned. Ranges may come in any order and leave gaps; they must not overlap. Empty ones take no part.
Plan make_plan(std::span<const FileRange> targets, const Cuts& cuts);

// Throws Error(kInvalidArgument) for a number of threads that nobody means: below 0, which stands for as many as pay, or absurd.
void check_num_threads(int64_t requested);

// How many workers to give a plan: `requested`, or for 0 what the storage's parallelism and the amount of work make of it.
int choose_num_threads(int64_t requested, const Plan& plan, int parallelism);

}  // namespace veturbo::engine
