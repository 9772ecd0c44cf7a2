// The staging ring against a device that is not there: it copies in threads of its own, late and in any order, and looks whether
// anybody touched a slot meanwhile.
#include "engine/staging.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <future>
#include <random>
#include <stdexcept>
#include <thread>

#include "testing/errors.h"
#include "testing/memory_files.h"

namespace veturbo::engine {
namespace {

using testing::MemoryReadableFile;
using testing::pattern;

struct Faults {
  int fail_start = 0;  // the how manieth copy is refused
  int fail_wait = 0;   // the how manieth wait reports a failure
  int max_delay_us = 300;
};

class SimulatedDevice final : public AsyncCopier {
 public:
  SimulatedDevice(std::vector<std::byte*> targets, size_t num_slots, Faults faults, std::atomic<int>& running)
      : targets_(std::move(targets)), copies_(num_slots), faults_(faults), running_(running) {}

  ~SimulatedDevice() override {
    for (std::future<bool>& copy : copies_) {
      if (copy.valid()) {
        copy.wait();
      }
    }
  }

  void start(size_t slot, std::span<const Segment> segments, std::span<const std::byte> bytes) override {
    if (++started_ == faults_.fail_start) {
      throw std::runtime_error("the device refuses a copy");
    }
    // What is in the slot now must be what is there when the copy gets to it.
    const std::vector<std::byte> promised(bytes.begin(), bytes.end());
    const int delay = delay_of_next();
    ++running_;
    copies_[slot] = std::async(std::launch::async, [this, promised, segments, bytes, delay] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay));
      const bool untouched = std::equal(bytes.begin(), bytes.end(), promised.begin());
      size_t position = 0;
      for (const Segment& segment : segments) {
        std::memcpy(targets_[segment.target] + segment.target_offset, bytes.data() + position, segment.size);
        position += segment.size;
      }
      --running_;
      return untouched;
    });
  }

  bool is_done(size_t slot) override { return copies_[slot].wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

  void wait(size_t slot) override {
    EXPECT_TRUE(copies_[slot].get()) << "slot " << slot << " was written before it had been copied";
    if (++waited_ == faults_.fail_wait) {
      throw std::runtime_error("the device failed in a copy");
    }
  }

 private:
  int delay_of_next() {
    std::lock_guard lock(mutex_);
    return static_cast<int>(random_() % static_cast<unsigned>(faults_.max_delay_us));
  }

  std::vector<std::byte*> targets_;
  std::vector<std::future<bool>> copies_;
  Faults faults_;
  std::atomic<int>& running_;
  std::atomic<int> started_ = 0;
  std::atomic<int> waited_ = 0;
  std::mutex mutex_;
  std::mt19937 random_{3};
};

constexpr uint64_t kChunkSize = 4096;

// A load of a file with many small and some large targets through the ring.
struct StagedLoad {
  StagedLoad(size_t num_slots, Faults faults, int fail_read_at = 0) : content(pattern(400'000)), file(content, fail_read_at) {
    std::mt19937 random(5);
    std::vector<FileRange> ranges;
    for (uint64_t offset = 77; offset < content.size();) {
      const uint64_t size = std::min<uint64_t>(content.size() - offset, random() % 5 == 0 ? random() % 30'000 : random() % 500);
      ranges.push_back({offset, size});
      offset += size;
    }
    std::vector<std::byte*> targets;
    for (const FileRange& range : ranges) {
      targets.push_back(memory.data() + range.offset);
    }
    staging.resize(num_slots * kChunkSize);
    std::vector<std::span<std::byte>> slots;
    for (size_t i = 0; i < num_slots; ++i) {
      slots.push_back(std::span(staging).subspan(i * kChunkSize, kChunkSize));
    }
    auto device = std::make_unique<SimulatedDevice>(targets, num_slots, faults, copies_running);
    legs.push_back({&file, make_plan(ranges, {.chunk_size = kChunkSize}),
                    std::make_unique<StagingSink>(std::move(slots), std::move(device))});
  }

  void start(int threads) {
    job.start(threads, legs[0].plan.bytes, legs[0].plan.chunks.size(),
              {.run = [this](Job& job, size_t) { load_chunks(job, legs); }});
  }

  std::vector<std::byte> content;
  MemoryReadableFile file;
  std::vector<std::byte> memory = std::vector<std::byte>(400'000);
  std::vector<std::byte> staging;
  std::atomic<int> copies_running = 0;
  std::vector<LoadLeg> legs;
  Job job;
};

class Staging : public ::testing::TestWithParam<std::tuple<int, size_t, int>> {};

TEST_P(Staging, DeliversEveryByteThoughCopiesEndInAnyOrder) {
  const auto& [threads, slots, max_delay] = GetParam();
  StagedLoad load(slots, {.max_delay_us = max_delay});
  load.start(threads);
  load.job.wait(std::nullopt);
  load.job.rethrow_if_failed();
  EXPECT_EQ(load.copies_running, 0) << "the load ended before its copies had";
  EXPECT_TRUE(std::equal(load.memory.begin() + 77, load.memory.end(), load.content.begin() + 77));
}

INSTANTIATE_TEST_SUITE_P(Grid, Staging,
                         ::testing::Combine(::testing::Values(0, 1, 4), ::testing::Values(1, 2, 8), ::testing::Values(1, 2000)));

// That these end at all is what they show: a worker that waits for a slot which never comes back would hang them.
class StagingFails : public ::testing::TestWithParam<size_t> {};

TEST_P(StagingFails, WhenTheDeviceRefusesACopy) {
  StagedLoad load(GetParam(), {.fail_start = 10});
  load.start(4);
  load.job.wait(std::nullopt);
  EXPECT_THROW(load.job.rethrow_if_failed(), std::runtime_error);
  load.legs.clear();
  EXPECT_EQ(load.copies_running, 0);
}

TEST_P(StagingFails, WhenACopyFails) {
  StagedLoad load(GetParam(), {.fail_wait = 10});
  load.start(4);
  load.job.wait(std::nullopt);
  EXPECT_THROW(load.job.rethrow_if_failed(), std::runtime_error);
  load.legs.clear();
  EXPECT_EQ(load.copies_running, 0);
}

TEST_P(StagingFails, WhenAReadFails) {
  StagedLoad load(GetParam(), {}, /*fail_read_at=*/10);
  load.start(4);
  load.job.wait(std::nullopt);
  EXPECT_EQ(testing::error_of([&] { load.job.rethrow_if_failed(); }).code(), EIO);
  load.legs.clear();
  EXPECT_EQ(load.copies_running, 0);
}

TEST_P(StagingFails, WhenItIsCancelled) {
  StagedLoad load(GetParam(), {.max_delay_us = 5000});
  load.start(4);
  load.job.cancel();
  load.job.wait(std::nullopt);
  EXPECT_EQ(testing::error_of([&] { load.job.rethrow_if_failed(); }).kind(), ErrorKind::kCancelled);
  load.legs.clear();
  EXPECT_EQ(load.copies_running, 0);
}

INSTANTIATE_TEST_SUITE_P(Slots, StagingFails, ::testing::Values(1, 2, 6));

TEST(StagingSink, ReadsAsFarFromAnAlignedAddressAsInTheFile) {
  std::atomic<int> running = 0;
  std::vector<std::byte> target(20'000);
  std::vector<std::byte> staging(8192);
  StagingSink sink({std::span(staging)}, std::make_unique<SimulatedDevice>(std::vector{target.data()}, 1, Faults{}, running));
  const std::vector<FileRange> ranges = {{5000, 1000}};
  const Plan plan = make_plan(ranges, {.chunk_size = 8192});
  Spans memory;
  const size_t slot = sink.acquire(plan.chunks[0], plan.segments, memory);
  EXPECT_EQ(memory[0].data() - staging.data(), 5000 % 4096);
  sink.abandon(slot);
  memory.clear();
  EXPECT_EQ(sink.acquire(plan.chunks[0], plan.segments, memory), slot);  // it came back
}

}  // namespace
}  // namespace veturbo::engine
