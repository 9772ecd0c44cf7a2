#include "engine/save.h"

namespace veturbo::engine {

namespace {

// As in a load: segments below this share a write, by way of a buffer.
constexpr uint64_t kSmallBytes = uint64_t{64} << 10;
constexpr uint64_t kGatherBytes = uint64_t{1} << 20;

class ChunkWriter {
 public:
  explicit ChunkWriter(storage::WritableFile& file) : file_(file) {}

  void write(std::span<const Segment> segments, const ConstSpans& memory) {
    for (size_t i = 0; i < segments.size();) {
      i = segments[i].size < kSmallBytes ? write_small(segments, memory, i) : write_large(segments, memory, i);
    }
  }

 private:
  size_t write_large(std::span<const Segment> segments, const ConstSpans& memory, size_t first) {
    size_t size = memory[first].size();
    size_t end = first + 1;
    while (end < segments.size() && memory[end].data() == memory[first].data() + size) {
      size += memory[end++].size();
    }
    file_.write_at(segments[first].file_offset, {memory[first].data(), size});
    return end;
  }

  size_t write_small(std::span<const Segment> segments, const ConstSpans& memory, size_t first) {
    buffer_.clear();
    buffer_.reserve(kGatherBytes);
    size_t end = first;
    while (end < segments.size() && segments[end].size < kSmallBytes && buffer_.size() + segments[end].size <= kGatherBytes) {
      buffer_.insert(buffer_.end(), memory[end].begin(), memory[end].end());
      ++end;
    }
    file_.write_at(segments[first].file_offset, buffer_);
    return end;
  }

  storage::WritableFile& file_;
  std::vector<std::byte> buffer_;
};

}  // namespace

void HostSource::fetch(size_t, const Chunk&, std::span<const Segment> segments, ConstSpans& memory) {
  for (const Segment& segment : segments) {
    memory.emplace_back(targets_[segment.target] + segment.target_offset, segment.size);
  }
}

void save_chunks(Job& job, size_t worker, storage::WritableFile& file, const Plan& plan, ChunkSource& source) {
  ChunkWriter writer(file);
  ConstSpans memory;
  while (const auto run = job.next_chunk()) {
    for (const Chunk& chunk : plan.chunks_of(plan.runs[*run])) {
      if (job.stopped()) {
        return;
      }
      const std::span<const Segment> segments = plan.segments_of(chunk);
      memory.clear();
      source.fetch(worker, chunk, segments, memory);
      writer.write(segments, memory);
      job.add_done(chunk.size);
    }
  }
}

}  // namespace veturbo::engine
