#include "engine/stream_writer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "testing/errors.h"
#include "testing/memory_files.h"

namespace veturbo::engine {
namespace {

using testing::MemoryWritableFile;
using testing::pattern;

constexpr uint64_t kRunSize = 10'000;

// What became of a file that somebody else owns.
struct Outcome {
  std::vector<std::byte> bytes;
  bool committed = false;
  bool runs_in_order = false;
  int most_at_once = 0;
};

// Fails, if told to, when the byte of that offset is written, and waits in each write until `company` others are in one, for a
// while.
class WatchedFile final : public storage::WritableFile {
 public:
  WatchedFile(Outcome& outcome, size_t size, uint64_t run_size, uint64_t run_shift)
      : WritableFile("memory://watched"), outcome_(outcome), inner_(size, run_size, run_shift) {}
  ~WatchedFile() override {
    outcome_.bytes = inner_.bytes();
    outcome_.runs_in_order = inner_.runs_were_written_in_order();
  }

  storage::WriteTraits traits() const override { return inner_.traits(); }
  uint64_t fail_at = UINT64_MAX;
  int company = 0;

 protected:
  void do_write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    {
      std::unique_lock lock(mutex_);
      outcome_.most_at_once = std::max(outcome_.most_at_once, ++writing_);
      changed_.notify_all();
      changed_.wait_for(lock, std::chrono::milliseconds(200), [&] { return outcome_.most_at_once > company; });
    }
    if (fail_at >= offset && fail_at < offset + bytes.size()) {
      throw Error(ErrorKind::kIo, "disk full", ENOSPC).at_offset(offset);
    }
    inner_.write_at(offset, bytes);
    std::lock_guard lock(mutex_);
    --writing_;
  }
  void do_commit() override { outcome_.committed = true; }

 private:
  Outcome& outcome_;
  MemoryWritableFile inner_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int writing_ = 0;
};

void write_in_pieces(StreamWriter& stream, std::span<const std::byte> bytes, size_t piece) {
  while (!bytes.empty()) {
    const size_t size = std::min(piece, bytes.size());
    stream.write(bytes.first(size));
    bytes = bytes.subspan(size);
  }
}

TEST(StreamWriter, WritesEveryByteInWhateverOrderTheStorageTakes) {
  const std::vector<std::byte> bytes = pattern(73'000);
  for (const uint64_t run_size : {storage::kAnyOrder, kRunSize, storage::kInOrder}) {
    for (const size_t piece : {1'000, 10'000, 25'000, 100'000}) {
      Outcome outcome;
      {
        StreamWriter stream(std::make_unique<WatchedFile>(outcome, bytes.size(), run_size, run_size == kRunSize ? 3'000 : 0));
        write_in_pieces(stream, bytes, piece);
        EXPECT_TRUE(stream.commit().empty());
      }
      EXPECT_EQ(outcome.bytes, bytes);
      EXPECT_TRUE(outcome.committed);
      EXPECT_TRUE(outcome.runs_in_order);
    }
  }
}

TEST(StreamWriter, WritesSeveralRunsAtOnce) {
  const std::vector<std::byte> bytes = pattern(73'000);
  Outcome outcome;
  auto file = std::make_unique<WatchedFile>(outcome, bytes.size(), kRunSize, 0);
  file->company = 2;
  {
    StreamWriter stream(std::move(file));
    write_in_pieces(stream, bytes, 1'000);
    stream.commit();
  }
  EXPECT_GE(outcome.most_at_once, 3);
  EXPECT_LE(outcome.most_at_once, 4) << "as many as the storage wants";
}

TEST(StreamWriter, OfNothingMakesAnEmptyFile) {
  Outcome outcome;
  StreamWriter(std::make_unique<WatchedFile>(outcome, 0, kRunSize, 0)).commit();
  EXPECT_TRUE(outcome.committed);
}

TEST(StreamWriter, TellsOfAFailureLaterAndCommitsNothing) {
  const std::vector<std::byte> bytes = pattern(200'000);
  for (const uint64_t fail_at : {0, 15'000, 199'999}) {
    Outcome outcome;
    auto file = std::make_unique<WatchedFile>(outcome, bytes.size(), kRunSize, 0);
    file->fail_at = fail_at;
    {
      StreamWriter stream(std::move(file));
      const Error error = testing::error_of([&] {
        write_in_pieces(stream, bytes, 1'000);
        stream.commit();
      });
      EXPECT_EQ(error.code(), ENOSPC);
      EXPECT_EQ(error.file(), "memory://watched");
    }
    EXPECT_FALSE(outcome.committed);
  }
}

TEST(StreamWriter, ThatIsGivenUpEndsItsThreads) {
  Outcome outcome;
  {
    StreamWriter stream(std::make_unique<WatchedFile>(outcome, 200'000, kRunSize, 0));
    write_in_pieces(stream, pattern(55'000), 1'000);
  }
  EXPECT_FALSE(outcome.committed);
}

}  // namespace
}  // namespace veturbo::engine
