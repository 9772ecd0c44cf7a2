#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace veturbo::storage {

struct WriteTraits {
  uint64_t chunk_size;    // bytes that one write should move
  uint64_t inline_bytes;  // up to which the calling thread may write by itself: starting another would take longer
  int parallelism;        // writes in flight beyond which nothing is gained
  // The file is written in runs of so many bytes. In a run one write at a time, each beginning where the last ended; runs at once
  // and in any order. kAnyOrder: writes in any order.
  uint64_t run_size;
  uint64_t run_shift = 0;  // bytes that the first run has before the file's first
  // What lies in the file and in memory at multiples of this is written without a detour; the rest through the page cache. 1: all
  // writes are alike.
  uint64_t alignment = 1;
};

constexpr uint64_t kAnyOrder = 0;
constexpr uint64_t kInOrder = UINT64_MAX;  // the whole file is one run

// A file that takes the place of whatever has its name when it is committed, and not before. Destroyed without commit() it leaves
// no trace. All methods but commit() may be called from many threads at once, within what traits() say.
class WritableFile {
 public:
  explicit WritableFile(std::string uri) : uri_(std::move(uri)) {}
  virtual ~WritableFile() = default;
  WritableFile(const WritableFile&) = delete;
  WritableFile& operator=(const WritableFile&) = delete;

  const std::string& uri() const { return uri_; }
  virtual WriteTraits traits() const = 0;

  // Writes all of `bytes`, or throws an Error that names uri and offset.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);

  // Makes the file durable and gives it its name. To be called once, when every write has returned.
  void commit();

  // Guarantees that this storage could not give, one sentence each, so far.
  virtual std::vector<std::string> warnings() const;

 protected:
  virtual void do_write_at(uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual void do_commit() = 0;
  void warn(std::string text);

 private:
  std::string uri_;
  mutable std::mutex mutex_;
  std::vector<std::string> warnings_;
};

}  // namespace veturbo::storage
