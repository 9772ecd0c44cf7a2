#include "engine/load.h"

#include <cstring>

namespace veturbo::engine {

namespace {

// Tensors below this are read several at once into a buffer that stays in the cache and copied from there: a system call for each
// would cost more than the copy.
constexpr uint64_t kSmallBytes = uint64_t{16} << 10;
constexpr uint64_t kGatherBytes = uint64_t{128} << 10;

class ChunkReader {
 public:
  void read(storage::ReadableFile& file, std::span<const Segment> segments, const Spans& memory) {
    for (size_t i = 0; i < segments.size();) {
      i = segments[i].size < kSmallBytes ? read_small(file, segments, memory, i) : read_large(file, segments, memory, i);
    }
  }

 private:
  // Segments whose memory is contiguous as well are one read.
  size_t read_large(storage::ReadableFile& file, std::span<const Segment> segments, const Spans& memory, size_t first) {
    size_t size = memory[first].size();
    size_t end = first + 1;
    while (end < segments.size() && memory[end].data() == memory[first].data() + size) {
      size += memory[end++].size();
    }
    file.read_at(segments[first].file_offset, {memory[first].data(), size});
    return end;
  }

  size_t read_small(storage::ReadableFile& file, std::span<const Segment> segments, const Spans& memory, size_t first) {
    uint64_t size = 0;
    size_t end = first;
    bool contiguous = true;
    while (end < segments.size() && segments[end].size < kSmallBytes && size + segments[end].size <= kGatherBytes) {
      contiguous = contiguous && memory[end].data() == memory[first].data() + size;
      size += segments[end++].size;
    }
    if (contiguous) {
      return read_large(file, segments, memory, first);
    }
    buffer_.resize(kGatherBytes);
    file.read_at(segments[first].file_offset, std::span(buffer_).first(size));
    const std::byte* from = buffer_.data();
    for (size_t i = first; i < end; ++i) {
      std::memcpy(memory[i].data(), from, memory[i].size());
      from += memory[i].size();
    }
    return end;
  }

  std::vector<std::byte> buffer_;
};

}  // namespace

size_t HostSink::acquire(const Chunk&, std::span<const Segment> segments, Spans& memory) {
  for (const Segment& segment : segments) {
    memory.emplace_back(targets_[segment.target] + segment.target_offset, segment.size);
  }
  return 0;
}

void load_chunks(Job& job, std::span<const LoadLeg> legs) {
  ChunkReader reader;
  Spans memory;
  while (auto index = job.next_chunk()) {
    auto leg = legs.begin();
    while (*index >= leg->plan.chunks.size()) {
      *index -= leg->plan.chunks.size();
      ++leg;
    }
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
