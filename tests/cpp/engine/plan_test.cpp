#include "engine/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "testing/errors.h"

namespace veturbo::engine {
namespace {

// What every plan must keep: each byte of each range once, chunks within the grid, in them no gap that is larger than allowed,
// and between two of them in one cell of the grid none that is smaller.
void expect_exact(const Plan& plan, const std::vector<FileRange>& ranges, uint64_t chunk_size, uint64_t max_gap = 0) {
  std::vector<uint64_t> covered(ranges.size());
  uint64_t bytes = 0;
  uint64_t last_end = 0;
  uint32_t next_segment = 0;
  for (const Chunk& chunk : plan.chunks) {
    EXPECT_GE(chunk.file_offset, last_end);
    EXPECT_GT(chunk.size, 0U);
    if (last_end > 0 && chunk.file_offset / chunk_size == (last_end - 1) / chunk_size) {
      EXPECT_GT(chunk.file_offset - last_end, max_gap);
    }
    EXPECT_EQ(chunk.first_segment, next_segment);
    next_segment += chunk.num_segments;
    uint64_t at = chunk.file_offset;
    uint64_t size = 0;
    EXPECT_EQ(plan.segments_of(chunk).front().file_offset, at);
    for (const Segment& segment : plan.segments_of(chunk)) {
      const FileRange& range = ranges[segment.target];
      EXPECT_GE(segment.file_offset, at);
      EXPECT_LE(segment.file_offset - at, max_gap);
      EXPECT_EQ(segment.file_offset, range.offset + segment.target_offset);
      EXPECT_EQ(segment.target_offset, covered[segment.target]);
      covered[segment.target] += segment.size;
      at = segment.file_offset + segment.size;
      size += segment.size;
    }
    EXPECT_EQ(size, chunk.size);
    EXPECT_EQ(chunk.file_offset / chunk_size, (at - 1) / chunk_size);
    last_end = at;
    bytes += chunk.size;
  }
  EXPECT_EQ(next_segment, plan.segments.size());
  for (size_t i = 0; i < ranges.size(); ++i) {
    EXPECT_EQ(covered[i], ranges[i].size) << i;
  }
  EXPECT_EQ(bytes, plan.bytes);
}

TEST(Plan, CoversEveryByteOnceWhateverTheRanges) {
  std::mt19937 random(7);
  for (const uint64_t chunk_size : {uint64_t{1}, uint64_t{8}, uint64_t{64}, uint64_t{4096}}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<FileRange> ranges;
      uint64_t offset = random() % 100;
      for (int i = 0; i < 20; ++i) {
        const uint64_t size = random() % 4 == 0 ? 0 : random() % (3 * chunk_size + 2);
        ranges.push_back({offset, size});
        offset += size + (random() % 3 == 0 ? random() % 50 : 0);  // a gap now and then
      }
      std::shuffle(ranges.begin(), ranges.end(), random);
      const uint64_t max_gap = round % 2 == 0 ? 0 : random() % 50;
      expect_exact(make_plan(ranges, {.chunk_size = chunk_size, .max_gap = max_gap}), ranges, chunk_size, max_gap);
    }
  }
}

TEST(Plan, LetsSmallTensorsShareAChunkAndCutsLargeOnes) {
  const std::vector<FileRange> ranges = {{0, 10}, {10, 20}, {30, 200}};
  const Plan plan = make_plan(ranges, {.chunk_size = 64});
  ASSERT_EQ(plan.chunks.size(), 4U);
  EXPECT_EQ(plan.chunks[0].num_segments, 3U);
  EXPECT_EQ(plan.chunks[1].num_segments, 1U);
  EXPECT_EQ(plan.chunks[3].file_offset, 192U);
  EXPECT_EQ(plan.chunks[3].size, 38U);
}

TEST(Plan, CutsEachRunIntoChunksByItself) {
  const std::vector<FileRange> ranges = {{0, 100}, {100, 150}};
  const Plan plan = make_plan(ranges, {.chunk_size = 64, .run_size = 100, .run_shift = 30});
  std::vector<std::vector<uint64_t>> offsets;
  for (const auto& run : plan.runs) {
    offsets.emplace_back();
    for (const Chunk& chunk : plan.chunks_of(run)) {
      offsets.back().push_back(chunk.file_offset);
    }
  }
  EXPECT_EQ(offsets, (std::vector<std::vector<uint64_t>>{{0, 34}, {70, 134}, {170, 234}}));
  EXPECT_EQ(plan.bytes, 250U);
}

TEST(Plan, HasARunAChunkOrOneForAll) {
  const std::vector<FileRange> ranges = {{0, 300}};
  EXPECT_EQ(make_plan(ranges, {.chunk_size = 64}).runs.size(), 5U);
  const Plan plan = make_plan(ranges, {.chunk_size = 64, .run_size = UINT64_MAX});
  ASSERT_EQ(plan.runs.size(), 1U);
  EXPECT_EQ(plan.chunks_of(plan.runs[0]).size(), 5U);
}

TEST(Plan, OfNothingHasNoChunks) {
  EXPECT_TRUE(make_plan({}, {.chunk_size = 64}).chunks.empty());
  const std::vector<FileRange> empty = {{5, 0}, {5, 0}};
  EXPECT_TRUE(make_plan(empty, {.chunk_size = 64}).chunks.empty());
}

TEST(NumThreads, ThatNobodyMeansAreRefused) {
  EXPECT_NO_THROW(check_num_threads(0));
  EXPECT_NO_THROW(check_num_threads(32767));
  EXPECT_EQ(testing::error_of([] { check_num_threads(-1); }).cause(),
            "num_threads is -1: give 0 for as many as pay, or a number up to 32767");
  EXPECT_EQ(testing::error_of([] { check_num_threads(INT64_MAX); }).kind(), ErrorKind::kInvalidArgument);
}

TEST(NumThreads, AreNeverMoreThanChunksAndDefaultToWhatPays) {
  const std::vector<FileRange> large = {{0, uint64_t{1} << 30}};
  const Plan plan = make_plan(large, {.chunk_size = uint64_t{4} << 20});
  EXPECT_EQ(choose_num_threads(0, plan, 6), 6);
  EXPECT_EQ(choose_num_threads(3, plan, 6), 3);
  EXPECT_EQ(choose_num_threads(10000, plan, 6), 256);
  const std::vector<FileRange> small = {{0, 1024}};
  EXPECT_EQ(choose_num_threads(0, make_plan(small, {.chunk_size = uint64_t{4} << 20}), 6), 1);
  EXPECT_EQ(choose_num_threads(5, make_plan(small, {.chunk_size = uint64_t{4} << 20}), 6), 1);
  EXPECT_EQ(choose_num_threads(0, Plan{}, 6), 1);
  // Small chunks are those of a storage far away, where many readers pay for little.
  const std::vector<FileRange> medium = {{0, uint64_t{16} << 20}};
  EXPECT_EQ(choose_num_threads(0, make_plan(medium, {.chunk_size = uint64_t{16} << 20}), 32), 1);
  EXPECT_EQ(choose_num_threads(0, make_plan(medium, {.chunk_size = uint64_t{4} << 20}), 32), 4);
  EXPECT_EQ(choose_num_threads(0, make_plan(medium, {.chunk_size = uint64_t{1} << 20}), 32), 16);
  // One worker a run.
  EXPECT_EQ(choose_num_threads(0, make_plan(large, {.chunk_size = uint64_t{4} << 20, .run_size = uint64_t{512} << 20}), 6), 2);
}

}  // namespace
}  // namespace veturbo::engine
