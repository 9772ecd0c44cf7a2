#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace veturbo::storage {

// Of offset and length of direct reads and writes: the strictest that a local file system asks for, and a page of the page cache.
inline constexpr uint64_t kDirectBlockBytes = 4096;

// One direct read (O_DIRECT) of any bytes of a file into any memory, where the system takes only whole blocks of the file, and
// memory only at multiples of `memory_alignment` (a power of two, at most a block).
//
// Most of it is read into `out` itself, up to such a multiple behind its place, and moved there when it has come. That costs
// no more than copying it from a buffer, and no buffer of the size that a disk wants. The blocks at both ends do go through
// a small one: those of which not all is wanted, and the one that would not fit behind its place.
class DirectRead {
 public:
  DirectRead(uint64_t offset, std::span<std::byte> out, uint64_t memory_alignment);
  DirectRead(const DirectRead&) = delete;
  DirectRead& operator=(const DirectRead&) = delete;

  // What to read, and from where.
  std::span<const iovec> parts() const { return std::span(parts_).first(num_parts_); }
  uint64_t offset() const { return offset_; }

  // To be called when `got` bytes have been read. Returns how many bytes, from the first of `out` on, are there.
  size_t put_in_place(size_t got);

 private:
  void add_part(std::byte* memory, size_t size);

  uint64_t offset_;
  uint64_t skipped_;  // of the first block
  std::span<std::byte> out_;
  uint64_t head_ = 0;    // so many bytes are read into the buffer,
  uint64_t middle_ = 0;  // then so many into `out`, and the rest into the buffer again
  uint64_t shift_ = 0;   // how far behind its place the middle is read
  std::array<iovec, 3> parts_;
  size_t num_parts_ = 0;
  alignas(kDirectBlockBytes) std::array<std::byte, 4 * kDirectBlockBytes> buffer_;
};

}  // namespace veturbo::storage
