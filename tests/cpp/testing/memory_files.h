#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "storage/readable_file.h"
#include "storage/writable_file.h"

namespace veturbo::testing {

// Bytes that tell where they are from.
inline std::vector<std::byte> pattern(size_t size, uint32_t seed = 1) {
  std::vector<std::byte> bytes(size);
  uint32_t state = seed * 2654435761U + 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

// A file in memory. Fails the read numbered `fail_at`, counted from 1, if any.
class MemoryReadableFile final : public storage::ReadableFile {
 public:
  explicit MemoryReadableFile(std::vector<std::byte> bytes, int fail_at = 0)
      : ReadableFile("memory://file", bytes.size()), bytes_(std::move(bytes)), fail_at_(fail_at) {}

  storage::ReadTraits traits() const override {
    return {.chunk_size = 4096, .piece_size = 1024, .parallelism = 4, .mappable = false};
  }
  int reads() const { return reads_; }

 protected:
  void do_read_at(uint64_t offset, std::span<std::byte> out) override {
    if (++reads_ == fail_at_) {
      throw Error::from_errno(EIO, "read").at_offset(offset);
    }
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
  }

 private:
  std::vector<std::byte> bytes_;
  int fail_at_;
  std::atomic<int> reads_ = 0;
};

class MemoryWritableFile final : public storage::WritableFile {
 public:
  explicit MemoryWritableFile(size_t size, bool in_order = false)
      : WritableFile("memory://file"), bytes_(size), in_order_(in_order) {}

  storage::WriteTraits traits() const override { return {.chunk_size = 4096, .parallelism = 4, .in_order = in_order_}; }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  bool was_written_in_order() const { return was_in_order_; }

 protected:
  void do_write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    std::lock_guard lock(mutex_);
    was_in_order_ = was_in_order_ && offset == end_;
    end_ = offset + bytes.size();
    std::copy(bytes.begin(), bytes.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void do_commit() override {}

 private:
  std::mutex mutex_;
  std::vector<std::byte> bytes_;
  bool in_order_;
  bool was_in_order_ = true;
  uint64_t end_ = 0;
};

}  // namespace veturbo::testing
