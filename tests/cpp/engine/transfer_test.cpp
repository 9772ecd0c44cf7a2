// Loads and saves between memory and files in memory: every byte, whatever the sizes and the number of threads.
#include <gtest/gtest.h>

#include <condition_variable>
#include <random>
#include <tuple>

#include "engine/load.h"
#include "engine/save.h"
#include "testing/errors.h"
#include "testing/memory_files.h"

namespace veturbo::engine {
namespace {

using testing::MemoryReadableFile;
using testing::MemoryWritableFile;
using testing::pattern;

// Sizes of targets that follow one another in the file.
std::vector<size_t> sizes_of_kind(const std::string& kind) {
  std::mt19937 random(11);
  std::vector<size_t> sizes;
  if (kind == "tiny") {
    for (int i = 0; i < 3000; ++i) {
      sizes.push_back(random() % 40);
    }
  } else if (kind == "large") {
    sizes = {100'000, 1, 300'000, 65'536, 16'383, 16'384};
  } else {
    for (int i = 0; i < 200; ++i) {
      sizes.push_back(i % 7 == 0 ? 20'000 + random() % 90'000 : random() % 3'000);
    }
  }
  return sizes;
}

struct Layout {
  std::vector<FileRange> ranges;
  uint64_t file_size;
};

Layout lay_out(const std::vector<size_t>& sizes, uint64_t begin) {
  Layout layout = {{}, begin};
  for (const size_t size : sizes) {
    layout.ranges.push_back({layout.file_size, size});
    layout.file_size += size;
  }
  return layout;
}

using Case = std::tuple<std::string, int, uint64_t>;  // kind of sizes, threads, chunk size

class Transfer : public ::testing::TestWithParam<Case> {};

TEST_P(Transfer, LoadsEveryByteIntoItsTarget) {
  const auto& [kind, threads, chunk_size] = GetParam();
  const Layout layout = lay_out(sizes_of_kind(kind), 123);
  const std::vector<std::byte> content = pattern(layout.file_size);
  MemoryReadableFile file(content);
  // Memory that is not contiguous where the file is, with a guard byte after each target.
  std::vector<std::vector<std::byte>> memory;
  std::vector<std::byte*> targets;
  for (const FileRange& range : layout.ranges) {
    memory.emplace_back(range.size + 1, std::byte{0xEE});
    targets.push_back(memory.back().data());
  }
  std::vector<LoadLeg> legs;
  legs.push_back({&file, make_plan(layout.ranges, {.chunk_size = chunk_size}), std::make_unique<HostSink>(targets)});
  Job job;
  job.start(threads, legs[0].plan.bytes, legs[0].plan.chunks.size(), {.run = [&](Job& job, size_t) { load_chunks(job, legs); }});
  job.wait(std::nullopt);
  job.rethrow_if_failed();
  for (size_t i = 0; i < memory.size(); ++i) {
    const FileRange& range = layout.ranges[i];
    ASSERT_TRUE(std::equal(memory[i].begin(), memory[i].end() - 1, content.begin() + static_cast<std::ptrdiff_t>(range.offset)))
        << i;
    ASSERT_EQ(memory[i].back(), std::byte{0xEE}) << i;
  }
  EXPECT_EQ(job.bytes_done(), layout.file_size - 123);
}

TEST_P(Transfer, SavesEveryByteToItsPlace) {
  const auto& [kind, threads, chunk_size] = GetParam();
  const Layout layout = lay_out(sizes_of_kind(kind), 0);
  std::vector<std::byte> expected;
  std::vector<std::vector<std::byte>> memory;
  std::vector<StridedMemory> targets;
  for (uint32_t i = 0; i < layout.ranges.size(); ++i) {
    memory.push_back(pattern(layout.ranges[i].size, i));
    targets.push_back({memory.back().data(), 1, {}, {}});
    expected.insert(expected.end(), memory.back().begin(), memory.back().end());
  }
  for (const uint64_t run_size : {storage::kAnyOrder, uint64_t{10'007}, 3 * chunk_size, storage::kInOrder}) {
    MemoryWritableFile file(layout.file_size, run_size, run_size == 10'007 ? 5'000 : 0);
    const storage::WriteTraits traits = file.traits();
    const Plan plan = make_plan(layout.ranges, {.chunk_size = chunk_size, .run_size = run_size, .run_shift = traits.run_shift});
    HostSource source(targets, plan, threads);
    Job job;
    job.start(threads, plan.bytes, plan.runs.size(),
              {.run = [&](Job& job, size_t worker) { save_chunks(job, worker, file, plan, source); }});
    job.wait(std::nullopt);
    job.rethrow_if_failed();
    EXPECT_EQ(file.bytes(), expected);
    EXPECT_TRUE(file.runs_were_written_in_order()) << run_size;
    if (threads <= 1 || run_size == storage::kInOrder) {
      EXPECT_TRUE(file.was_written_in_order());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Grid, Transfer,
                         ::testing::Combine(::testing::Values("tiny", "large", "mixed"), ::testing::Values(0, 1, 4),
                                            ::testing::Values(uint64_t{4096}, uint64_t{1} << 17)));

TEST(Load, ReadsManySmallTensorsAtOnce) {
  const Layout layout = lay_out(std::vector<size_t>(1000, 50), 0);
  MemoryReadableFile file(pattern(layout.file_size));
  std::vector<std::byte> memory(1000 * 64);  // each 64 apart, as in an arena
  std::vector<std::byte*> targets;
  for (size_t i = 0; i < 1000; ++i) {
    targets.push_back(memory.data() + 64 * i);
  }
  std::vector<LoadLeg> legs;
  legs.push_back({&file, make_plan(layout.ranges, {.chunk_size = uint64_t{1} << 20}), std::make_unique<HostSink>(targets)});
  Job job;
  job.start(0, 0, legs[0].plan.chunks.size(), {.run = [&](Job& job, size_t) { load_chunks(job, legs); }});
  job.rethrow_if_failed();
  EXPECT_EQ(file.reads(), 50) << "20 of them are a piece of this storage";
}

TEST(Load, ReadsOverSmallGaps) {
  const std::vector<std::byte> content = pattern(8192);
  MemoryReadableFile file(content);
  const std::vector<FileRange> ranges = {{10, 50}, {100, 20}, {400, 300}, {750, 50}, {820, 30}};
  std::vector<std::byte> memory(450);
  std::vector<std::byte*> targets;
  size_t size = 0;
  for (const FileRange& range : ranges) {
    targets.push_back(memory.data() + size);
    size += range.size;
  }
  std::vector<LoadLeg> legs;
  legs.push_back({&file, make_plan(ranges, {.chunk_size = 4096, .max_gap = 50}), std::make_unique<HostSink>(targets)});
  Job job;
  job.start(0, size, legs[0].plan.chunks.size(), {.run = [&](Job& job, size_t) { load_chunks(job, legs); }});
  job.rethrow_if_failed();
  EXPECT_EQ(file.reads(), 3) << "the first two, the large one, the last two";
  EXPECT_EQ(file.bytes_read(), 110U + 300 + 100);
  EXPECT_EQ(job.bytes_done(), 450U);
  for (size_t i = 0; i < ranges.size(); ++i) {
    EXPECT_TRUE(
        std::equal(targets[i], targets[i] + ranges[i].size, content.begin() + static_cast<std::ptrdiff_t>(ranges[i].offset)));
  }
}

TEST(Load, GoesThroughTheLegsOneAfterTheOther) {
  const std::vector<std::byte> content = pattern(10'000);
  MemoryReadableFile file(content);
  std::vector<std::byte> first(10'000);
  std::vector<std::byte> second(10'000);
  const std::vector<FileRange> head = {{0, 6'000}};
  const std::vector<FileRange> tail = {{6'000, 4'000}};
  std::vector<LoadLeg> legs;
  legs.push_back({&file, make_plan(head, {.chunk_size = 1024}), std::make_unique<HostSink>(std::vector{first.data()})});
  legs.push_back({&file, make_plan(tail, {.chunk_size = 1024}), std::make_unique<HostSink>(std::vector{second.data()})});
  Job job;
  job.start(3, 10'000, legs[0].plan.chunks.size() + legs[1].plan.chunks.size(),
            {.run = [&](Job& job, size_t) { load_chunks(job, legs); }});
  job.wait(std::nullopt);
  job.rethrow_if_failed();
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + 6'000, content.begin()));
  EXPECT_TRUE(std::equal(second.begin(), second.begin() + 4'000, content.begin() + 6'000));
  EXPECT_EQ(job.bytes_done(), 10'000U);
}

// Turns out to be far away once it has been read from: four can then read it at once, and wait a while for each other.
class FarFile final : public storage::ReadableFile {
 public:
  explicit FarFile(std::vector<std::byte> bytes) : ReadableFile("memory://far", bytes.size()), bytes_(std::move(bytes)) {}

  storage::ReadTraits traits() const override {
    return {.chunk_size = 1024,
            .piece_size = 1024,
            .inline_bytes = 0,
            .max_gap = 0,
            .parallelism = reads_ == 0 ? 1 : 4,
            .mappable = false};
  }
  int most_at_once() const { return most_at_once_; }

 protected:
  void do_read_at(uint64_t offset, std::span<std::byte> out) override {
    std::unique_lock lock(mutex_);
    most_at_once_ = std::max(most_at_once_, ++at_once_);
    if (++reads_ > 1) {
      changed_.notify_all();
      changed_.wait_for(lock, std::chrono::milliseconds(200), [this] { return most_at_once_ == 4; });
    }
    --at_once_;
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
  }

 private:
  std::vector<std::byte> bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<int> reads_ = 0;
  int at_once_ = 0;
  int most_at_once_ = 0;
};

TEST(Load, IsGivenMoreWorkersWhereTheStorageTurnsOutToBeFar) {
  const std::vector<std::byte> content = pattern(10'000);
  for (const Readers readers : {Readers::kAsManyAsPay, Readers::kFixed}) {
    FarFile file(content);
    std::vector<std::byte> memory(content.size());
    const std::vector<FileRange> ranges = {{0, content.size()}};
    std::vector<LoadLeg> legs;
    legs.push_back({&file, make_plan(ranges, {.chunk_size = 1024}), std::make_unique<HostSink>(std::vector{memory.data()})});
    Job job;
    job.start(1, content.size(), legs[0].plan.chunks.size(), {.run = [&](Job& job, size_t) { load_chunks(job, legs, readers); }});
    job.wait(std::nullopt);
    job.rethrow_if_failed();
    EXPECT_EQ(file.most_at_once(), readers == Readers::kFixed ? 1 : 4);
    EXPECT_EQ(memory, content);
  }
}

// Storage that wants its writes aligned, and notes those that are not.
class AlignedFile final : public storage::WritableFile {
 public:
  explicit AlignedFile(size_t size) : WritableFile("memory://file"), bytes_(size) {}

  storage::WriteTraits traits() const override {
    return {.chunk_size = 8192, .inline_bytes = 0, .parallelism = 4, .run_size = storage::kAnyOrder, .alignment = 4096};
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  int writes() const { return writes_; }
  bool were_all_aligned() const { return aligned_; }
  const std::byte* last_source() const { return last_source_; }

 protected:
  void do_write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    ++writes_;
    aligned_ = aligned_ && offset % 4096 == 0 && reinterpret_cast<uintptr_t>(bytes.data()) % 4096 == 0;
    last_source_ = bytes.data();
    std::copy(bytes.begin(), bytes.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void do_commit() override {}

 private:
  std::vector<std::byte> bytes_;
  int writes_ = 0;
  bool aligned_ = true;
  const std::byte* last_source_ = nullptr;
};

void save_inline(storage::WritableFile& file, const Plan& plan, std::vector<StridedMemory> targets) {
  HostSource source(std::move(targets), plan, 0);
  Job job;
  job.start(0, plan.bytes, plan.runs.size(),
            {.run = [&](Job& job, size_t worker) { save_chunks(job, worker, file, plan, source); }});
  job.rethrow_if_failed();
}

TEST(Save, WritesWholeAlignedChunksWhereTheStorageGainsByThem) {
  const std::vector<std::byte> content = pattern(50'000);
  const Layout layout = lay_out({10, 30'000, 1, 19'989}, 0);
  std::vector<StridedMemory> targets;
  for (const FileRange& range : layout.ranges) {
    targets.push_back({content.data() + range.offset, 1, {}, {}});
  }
  std::swap(targets[0].data, targets[2].data);  // so that it does not lie in memory as in the file
  AlignedFile file(50'000);
  save_inline(file, make_plan(layout.ranges, {.chunk_size = 8192}), targets);
  EXPECT_TRUE(file.were_all_aligned());
  EXPECT_EQ(file.writes(), 7);
  std::vector<std::byte> expected = content;
  std::copy_n(content.begin() + 30'010, 10, expected.begin());
  expected[30'010] = content[0];
  EXPECT_EQ(file.bytes(), expected);
}

TEST(Save, WritesAlignedMemoryFromWhereItIs) {
  const MappedRegion memory = MappedRegion::anonymous(16'384);
  const std::vector<FileRange> ranges = {{0, 16'384}};
  AlignedFile file(16'384);
  save_inline(file, make_plan(ranges, {.chunk_size = 8192}), {{memory.data(), 1, {}, {}}});
  EXPECT_EQ(file.last_source(), memory.data() + 8192);
}

TEST(Save, MakesTensorsContiguousChunkByChunk) {
  constexpr int64_t kRows = 300;
  constexpr int64_t kColumns = 70;
  const std::vector<std::byte> content = pattern(kRows * kColumns * 2 + 100);
  const std::vector<FileRange> ranges = {{0, 100}, {100, kRows * kColumns * 2}};
  // A matrix that is transposed in memory.
  const StridedMemory matrix = {content.data() + 100, 2, {kRows, kColumns}, {2, 2 * kRows}};
  std::vector<std::byte> expected(content.begin(), content.begin() + 100);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t column = 0; column < kColumns; ++column) {
      const auto element = content.begin() + 100 + 2 * (row + column * kRows);
      expected.insert(expected.end(), element, element + 2);
    }
  }
  MemoryWritableFile plain(expected.size());
  save_inline(plain, make_plan(ranges, {.chunk_size = 4096}), {{content.data(), 1, {}, {}}, matrix});
  EXPECT_EQ(plain.bytes(), expected);
  AlignedFile aligned(expected.size());
  save_inline(aligned, make_plan(ranges, {.chunk_size = 8192}), {{content.data(), 1, {}, {}}, matrix});
  EXPECT_EQ(aligned.bytes(), expected);
  EXPECT_TRUE(aligned.were_all_aligned());
}

class CountingSink final : public ChunkSink {
 public:
  size_t acquire(const Chunk& chunk, std::span<const Segment> segments, Spans& memory) override {
    buffer_.resize(chunk.size);
    std::span<std::byte> rest = buffer_;
    for (const Segment& segment : segments) {
      memory.push_back(rest.first(segment.size));
      rest = rest.subspan(segment.size);
    }
    return 5;
  }
  void deliver(const Chunk&, std::span<const Segment>, size_t) override { ++delivered; }
  void abandon(size_t ticket) noexcept override { abandoned += ticket == 5; }
  void drain() override {}

  int delivered = 0;
  int abandoned = 0;

 private:
  std::vector<std::byte> buffer_;
};

TEST(Load, GivesAChunkBackThatCouldNotBeRead) {
  MemoryReadableFile file(pattern(10'000), /*fail_at=*/3);
  const std::vector<FileRange> ranges = {{0, 10'000}};
  std::vector<LoadLeg> legs;
  legs.push_back({&file, make_plan(ranges, {.chunk_size = 1024}), std::make_unique<CountingSink>()});
  auto& sink = static_cast<CountingSink&>(*legs[0].sink);
  Job job;
  job.start(0, 0, legs[0].plan.chunks.size(), {.run = [&](Job& job, size_t) { load_chunks(job, legs); }});
  const Error error = testing::error_of([&] { job.rethrow_if_failed(); });
  EXPECT_STREQ(error.what(), "memory://file: read: Input/output error (at byte 2048)");
  EXPECT_EQ(sink.delivered, 2);
  EXPECT_EQ(sink.abandoned, 1);
}

}  // namespace
}  // namespace veturbo::engine
