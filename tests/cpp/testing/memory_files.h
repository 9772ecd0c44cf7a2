#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
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
    return {.chunk_size = 4096, .piece_size = 1024, .inline_bytes = 0, .max_gap = 0, .parallelism = 4, .mappable = false};
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
  explicit MemoryWritableFile(size_t size, uint64_t run_size = storage::kAnyOrder, uint64_t run_shift = 0)
      : WritableFile("memory://file"), bytes_(size), run_size_(run_size), run_shift_(run_shift) {}

  storage::WriteTraits traits() const override {
    return {.chunk_size = 4096, .inline_bytes = 0, .parallelism = 4, .run_size = run_size_, .run_shift = run_shift_};
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  // Whether each write began where the last ended, in the file or in its run.
  bool was_written_in_order() const { return in_order_; }
  bool runs_were_written_in_order() const { return runs_in_order_; }

 protected:
  void do_write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    std::lock_guard lock(mutex_);
    in_order_ = in_order_ && offset == end_;
    end_ = offset + bytes.size();
    if (run_size_ != storage::kAnyOrder) {
      const uint64_t run = (offset + run_shift_) / run_size_;
      const uint64_t begin = run == 0 ? 0 : run * run_size_ - run_shift_;
      const auto [end, first] = run_ends_.try_emplace(run, begin);
      runs_in_order_ = runs_in_order_ && offset == end->second && (end_ - 1 + run_shift_) / run_size_ == run;
      end->second = end_;
    }
    std::copy(bytes.begin(), bytes.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void do_commit() override {}

 private:
  std::mutex mutex_;
  std::vector<std::byte> bytes_;
  uint64_t run_size_;
  uint64_t run_shift_;
  bool in_order_ = true;
  bool runs_in_order_ = true;
  uint64_t end_ = 0;
  std::map<uint64_t, uint64_t> run_ends_;
};

}  // namespace veturbo::testing
