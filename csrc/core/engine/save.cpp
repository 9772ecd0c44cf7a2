#include "engine/save.h"

#include <algorithm>

#include "base/align.h"
#include "base/mapped_region.h"

namespace veturbo::engine {

namespace {

// As in a load: segments below this share a write, by way of a buffer.
constexpr uint64_t kSmallBytes = uint64_t{64} << 10;
constexpr uint64_t kGatherBytes = uint64_t{1} << 20;
constexpr uint64_t kBufferAlignment = 4096;

class ChunkWriter {
 public:
  ChunkWriter(storage::WritableFile& file, uint64_t chunk_size)
      : file_(file), alignment_(file.traits().alignment), chunk_size_(chunk_size) {}

  void write(std::span<const Segment> segments, const ConstSpans& memory) {
    if (alignment_ > 1) {
      write_aligned(segments, memory);
      return;
    }
    for (size_t i = 0; i < segments.size();) {
      i = segments[i].size < kSmallBytes ? write_small(segments, memory, i) : write_large(segments, memory, i);
    }
  }

 private:
  // All of it at once, and from memory that lies as it does in the file: from where it is, or else by way of a buffer. The copy
  // costs little beside the disk, on which other workers' chunks are being written meanwhile.
  void write_aligned(std::span<const Segment> segments, const ConstSpans& memory) {
    const uint64_t offset = segments.front().file_offset;
    const std::span<const std::byte> first = contiguous_from(memory, 0);
    const uint64_t skip = offset % alignment_;
    if (first.size() == segments.back().file_offset + segments.back().size - offset &&
        reinterpret_cast<uintptr_t>(first.data()) % alignment_ == skip) {
      file_.write_at(offset, first);
      return;
    }
    if (aligned_.size() == 0) {
      aligned_ = MappedRegion::anonymous(chunk_size_ + alignment_);
    }
    std::byte* end = aligned_.data() + skip;
    for (const std::span<const std::byte> bytes : memory) {
      end = std::copy(bytes.begin(), bytes.end(), end);
    }
    file_.write_at(offset, {aligned_.data() + skip, end});
  }

  // The bytes from one segment's on that lie in memory as they do in the file.
  static std::span<const std::byte> contiguous_from(const ConstSpans& memory, size_t first) {
    size_t size = memory[first].size();
    for (size_t i = first + 1; i < memory.size() && memory[i].data() == memory[first].data() + size; ++i) {
      size += memory[i].size();
    }
    return {memory[first].data(), size};
  }

  size_t write_large(std::span<const Segment> segments, const ConstSpans& memory, size_t first) {
    const std::span<const std::byte> bytes = contiguous_from(memory, first);
    file_.write_at(segments[first].file_offset, bytes);
    size_t end = first;
    for (size_t size = 0; size < bytes.size(); ++end) {
      size += memory[end].size();
    }
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
  uint64_t alignment_;
  uint64_t chunk_size_;
  std::vector<std::byte> buffer_;
  MappedRegion aligned_;
};

}  // namespace

HostSource::HostSource(std::vector<StridedMemory> targets, const Plan& plan, int num_threads)
    : targets_(std::move(targets)),
      buffer_bytes_(std::min(plan.chunk_size, plan.bytes) + kBufferAlignment),
      buffers_(static_cast<size_t>(std::max(num_threads, 1))) {}

void HostSource::fetch(size_t worker, const Chunk& chunk, std::span<const Segment> segments, ConstSpans& memory) {
  MappedRegion& buffer = buffers_[worker];
  for (const Segment& segment : segments) {
    const StridedMemory& target = targets_[segment.target];
    if (target.is_contiguous()) {
      memory.emplace_back(target.data + segment.target_offset, segment.size);
      continue;
    }
    if (buffer.size() == 0) {
      buffer = MappedRegion::anonymous(buffer_bytes_);
    }
    // As far from an aligned address in memory as in the file, so that it can be written from here past the page cache.
    const uint64_t position = chunk.file_offset % kBufferAlignment + segment.file_offset - chunk.file_offset;
    const std::span<std::byte> out(buffer.data() + position, segment.size);
    copy_contiguous(target, segment.target_offset, out);
    memory.push_back(out);
  }
}

void save_chunks(Job& job, size_t worker, storage::WritableFile& file, const Plan& plan, ChunkSource& source) {
  ChunkWriter writer(file, plan.chunk_size);
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
