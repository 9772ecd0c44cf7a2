#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/job.h"
#include "engine/plan.h"
#include "storage/readable_file.h"

namespace veturbo::engine {

using Spans = std::vector<std::span<std::byte>>;

// Where a load's bytes go. Called by many workers at once.
class ChunkSink {
 public:
  virtual ~ChunkSink() = default;

  // Gives, for each of the chunk's segments, the memory to read it into, and a ticket. May wait for memory to come free.
  virtual size_t acquire(const Chunk& chunk, std::span<const Segment> segments, Spans& memory) = 0;
  // The bytes are there. Memory of that ticket belongs to the sink again.
  virtual void deliver(const Chunk& chunk, std::span<const Segment> segments, size_t ticket) = 0;
  // The bytes could not be read.
  virtual void abandon(size_t ticket) noexcept = 0;
  // Returns when all that was delivered before has arrived.
  virtual void drain() = 0;
};

// The sink of a load into host memory: bytes are read where they are to stay, nothing is left to deliver.
class HostSink final : public ChunkSink {
 public:
  // One a target, in the plan's numbering; each as large as its range.
  explicit HostSink(std::vector<std::byte*> targets) : targets_(std::move(targets)) {}

  size_t acquire(const Chunk& chunk, std::span<const Segment> segments, Spans& memory) override;
  void deliver(const Chunk&, std::span<const Segment>, size_t) override {}
  void abandon(size_t) noexcept override {}
  void drain() override {}

 private:
  std::vector<std::byte*> targets_;
};

// A part of a load: what goes from one file through one sink. Of several files into several devices there is one for each two, of
// which those of one device may share their sink.
struct LoadLeg {
  storage::ReadableFile* file;
  Plan plan;
  std::shared_ptr<ChunkSink> sink;
};

// Whether a load that finds its storage to be far away may have more workers than it began with.
enum class Readers { kFixed, kAsManyAsPay };

// One worker of a load: takes chunks, numbered through all legs, until there are none, reads them and hands them on.
void load_chunks(Job& job, std::span<const LoadLeg> legs, Readers readers = Readers::kAsManyAsPay);

}  // namespace veturbo::engine
