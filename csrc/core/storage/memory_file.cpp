#include "storage/memory_file.h"

#include <cstring>
#include <utility>

#include "base/cpu_count.h"

namespace veturbo::storage {

namespace {

// Copied by one thread in a millisecond or less.
constexpr uint64_t kChunkBytes = uint64_t{4} << 20;
constexpr uint64_t kPieceBytes = uint64_t{128} << 10;

}  // namespace

MemoryFile::MemoryFile(std::string name, std::span<const std::byte> bytes, std::shared_ptr<const void> owner)
    : ReadableFile(std::move(name), bytes.size()), data_(bytes.data()), owner_(std::move(owner)), cpus_(available_cpus()) {}

ReadTraits MemoryFile::traits() const {
  return {.chunk_size = kChunkBytes,
          .piece_size = kPieceBytes,
          .inline_bytes = kChunkBytes,
          .max_gap = 0,
          .parallelism = cpus_,
          .mappable = false};
}

void MemoryFile::do_read_at(uint64_t offset, std::span<std::byte> out) {
  if (!out.empty()) {
    std::memcpy(out.data(), data_ + offset, out.size());
  }
}

MemoryTarget::MemoryTarget(std::span<std::byte> memory) : WritableFile(""), data_(memory.data()), cpus_(available_cpus()) {}

WriteTraits MemoryTarget::traits() const {
  return {.chunk_size = kChunkBytes, .inline_bytes = kChunkBytes, .parallelism = cpus_, .run_size = kAnyOrder};
}

void MemoryTarget::do_write_at(uint64_t offset, std::span<const std::byte> bytes) {
  if (!bytes.empty()) {
    std::memcpy(data_ + offset, bytes.data(), bytes.size());
  }
}

}  // namespace veturbo::storage
