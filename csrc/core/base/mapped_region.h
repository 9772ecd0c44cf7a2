#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
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

  // For regions whose parts end one by one: add_user() for each part, before the first of them ends; remove_user() when it has
  // ended, from any thread. A part of 1 MiB or more gives its own pages back at once. Smaller ones do together, when all that lie
  // in the same huge page have ended: a call to the system for each would take longer than all else about a small tensor.
  void add_user(uint64_t offset, uint64_t size);
  void remove_user(uint64_t offset, uint64_t size) noexcept;

  // Of an anonymous region: a child process finds zeros here. Where a device copies from memory by itself, a child that shared
  // its pages would have the parent write to others, which the device does not know of.
  void wipe_on_fork() noexcept;

  // Gives the pages that lie wholly within [offset, offset + size) back to the system. Their content is lost.
  void discard(uint64_t offset, uint64_t size) noexcept;

 private:
  MappedRegion(std::byte* data, uint64_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
  // For each huge page how many users begin or end in it.
  std::unique_ptr<std::atomic<uint32_t>[]> users_;
};

}  // namespace veturbo
