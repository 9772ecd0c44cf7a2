#include "engine/load.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace veturbo::engine {

namespace {

// Tensors below this share of the storage's piece are read several at once into a buffer, with what is between them, and copied
// from there: a call for each would cost more than the copy.
constexpr uint64_t kSmallShare = 8;

class ChunkReader {
 public:
  void read(storage::ReadableFile& file, std::span<const Segment> segments, const Spans& memory) {
    piece_bytes_ = file.traits().piece_size;
    for (size_t i = 0; i < segments.size();) {
      i = is_small(segments[i]) ? read_small(file, segments, memory, i) : read_large(file, segments, memory, i);
    }
  }

 private:
  bool is_small(const Segment& segment) const { return segment.size < piece_bytes_ / kSmallShare; }

  // Whether a segment's bytes follow those of the first in memory as they do in the file, `size` behind.
  static bool follows(std::span<const Segment> segments, const Spans& memory, size_t first, size_t next, uint64_t size) {
    return segments[next].file_offset == segments[first].file_offset + size && memory[next].data() == memory[first].data() + size;
  }

  // Segments that lie in memory as they do in the file are one read.
  size_t read_large(storage::ReadableFile& file, std::span<const Segment> segments, const Spans& memory, size_t first) {
    size_t size = memory[first].size();
    size_t end = first + 1;
    while (end < segments.size() && follows(segments, memory, first, end, size)) {
      size += memory[end++].size();
    }
    file.read_at(segments[first].file_offset, {memory[first].data(), size});
    return end;
  }

  size_t read_small(storage::ReadableFile& file, std::span<const Segment> segments, const Spans& memory, size_t first) {
    const uint64_t begin = segments[first].file_offset;
    uint64_t size = 0;
    size_t end = first;
    bool contiguous = true;
    for (; end < segments.size() && is_small(segments[end]); ++end) {
      const uint64_t whole = segments[end].file_offset + segments[end].size - begin;
      if (whole > piece_bytes_) {
        break;
      }
      contiguous = contiguous && follows(segments, memory, first, end, size);
      size = whole;
    }
    if (contiguous) {
      return read_large(file, segments, memory, first);
    }
    buffer_.resize(std::max<size_t>(buffer_.size(), size));
    file.read_at(begin, std::span(buffer_).first(size));
    for (size_t i = first; i < end; ++i) {
      std::memcpy(memory[i].data(), buffer_.data() + (segments[i].file_offset - begin), memory[i].size());
    }
    return end;
  }

  uint64_t piece_bytes_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace

size_t HostSink::acquire(const Chunk&, std::span<const Segment> segments, Spans& memory) {
  for (const Segment& segment : segments) {
    memory.emplace_back(targets_[segment.target] + segment.target_offset, segment.size);
  }
  return 0;
}

void load_chunks(Job& job, std::span<const LoadLeg> legs, Readers readers) {
  ChunkReader reader;
  std::optional<int> parallelism;  // before this worker's last chunk
  Spans memory;
  while (auto index = job.next_chunk()) {
    auto leg = legs.begin();
    while (*index >= leg->plan.chunks.size()) {
      *index -= leg->plan.chunks.size();
      ++leg;
    }
    // The first chunks may have shown that more can be had at once than was thought when the workers were started.
    const int now = leg->file->traits().parallelism;
    if (readers == Readers::kAsManyAsPay && parallelism && now > *parallelism) {
      job.add_workers(choose_num_threads(0, leg->plan, now));
    }
    parallelism = now;
    const Chunk& chunk = leg->plan.chunks[*index];
    const std::span<const Segment> segments = leg->plan.segments_of(chunk);
    memory.clear();
    const size_t ticket = leg->sink->acquire(chunk, segments, memory);
    try {
      reader.read(*leg->file, segments, memory);
    } catch (...) {
      leg->sink->abandon(ticket);
      throw;
    }
    leg->sink->deliver(chunk, segments, ticket);
    job.add_done(chunk.size);
  }
  for (const LoadLeg& leg : legs) {
    leg.sink->drain();
  }
}

}  // namespace veturbo::engine
