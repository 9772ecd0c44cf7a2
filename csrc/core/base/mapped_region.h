#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace veturbo {

// Owns a mapping. A region of size zero maps nothing and has no address.
class MappedRegion {
 public:
  MappedRegion() = default;

  // Fresh zeroed memory. From 2 MiB on it is aligned to huge pages and advised to use them: first touch of 4 KiB pages costs
  // three times as much as the read that touches them.
  static MappedRegion anonymous(uint64_t size);

  // A private, lazily populated view of an open file: writes to it stay in this process.
  static MappedRegion private_file(int fd, uint64_t size);

  MappedRegion(MappedRegion&& other) noexcept;
  MappedRegion& operator=(MappedRegion&& other) noexcept;
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;
  ~MappedRegion();

  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }

  // Gives the pages that lie wholly within [offset, offset + size) back to the system. Their content is lost.
  void discard(uint64_t offset, uint64_t size) noexcept;

 private:
  MappedRegion(std::byte* data, uint64_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace veturbo
