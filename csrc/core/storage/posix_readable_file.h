#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "storage/open.h"
#include "storage/system_calls.h"

namespace veturbo::storage {

// A regular file, read through the page cache or, with direct I/O, past it.
//
// O_DIRECT wants offset, length and memory aligned; tensors seldom are. What is aligned goes straight into the caller's memory,
// the rest through a bounce buffer, one a reading thread. A file system that refuses (EINVAL) is read through the cache instead.
class PosixReadableFile final : public ReadableFile {
 public:
  static std::unique_ptr<PosixReadableFile> open(std::string uri, const std::string& path, DirectIo direct_io,
                                                 const SystemCalls& calls = system_calls());

  ReadTraits traits() const override;
  MappedRegion map() const override;
  bool uses_direct_io() const { return direct_.load(std::memory_order_relaxed); }

 protected:
  void do_read_at(uint64_t offset, std::span<std::byte> out) override;

 private:
  PosixReadableFile(std::string uri, uint64_t size, UniqueFd fd, UniqueFd direct_fd, const SystemCalls& calls);

  void read_cached(uint64_t offset, std::span<std::byte> out);
  // False when the file system refuses or comes to nothing; what was read before that is simply read again.
  bool read_direct(uint64_t offset, std::span<std::byte> out);
  MappedRegion take_bounce_buffer();
  void give_bounce_buffer(MappedRegion buffer);

  const SystemCalls& calls_;
  UniqueFd fd_;
  UniqueFd direct_fd_;
  std::atomic<bool> direct_;
  std::mutex mutex_;
  std::vector<MappedRegion> bounce_buffers_;
};

}  // namespace veturbo::storage
