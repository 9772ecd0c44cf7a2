#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/mapped_region.h"

namespace veturbo::storage {

// What a back end knows of itself, so that the engine need not know which one it is.
struct ReadTraits {
  uint64_t chunk_size;    // bytes that one read should move; a power of two
  uint64_t piece_size;    // and the fewest, for who works on them while they are in the processor's cache; a power of two
  uint64_t inline_bytes;  // up to which the calling thread may read by itself: starting another would take longer
  uint64_t max_gap;       // up to which it is quicker to read what nobody wants than to call once more
  int parallelism;        // reads in flight beyond which nothing is gained
  bool mappable;          // map() works
};

// A file that does not change while it is open. All methods may be called from many threads at once.
class ReadableFile {
 public:
  ReadableFile(std::string uri, uint64_t size) : uri_(std::move(uri)), size_(size) {}
  virtual ~ReadableFile() = default;
  ReadableFile(const ReadableFile&) = delete;
  ReadableFile& operator=(const ReadableFile&) = delete;

  const std::string& uri() const { return uri_; }
  uint64_t size() const { return size_; }
  // May ask the storage something when it is first called, and says something else once reads have shown how far away that is.
  virtual ReadTraits traits() const = 0;

  // How many bytes have been asked for so far.
  uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }
  // What those who wait for its bytes should know, one sentence each, so far.
  virtual std::vector<std::string> warnings() const { return {}; }

  // Fills `out` with the bytes from `offset` on: all of them, or an Error that names uri and offset.
  void read_at(uint64_t offset, std::span<std::byte> out);

  // A private mapping of the whole file; Error(kInvalidArgument) where traits() say that there is none.
  virtual MappedRegion map() const;
  // What the file lies on, if a mapping there works but should not be had, because each page that it touches waits for a far
  // storage; else empty.
  virtual std::string too_far_to_map() const { return ""; }
  // Whether it is on this machine, so that reads of it end and none need be given up. Asks the storage nothing.
  virtual bool is_near() const { return false; }
  // Whether it is read from a disk, and not from the page cache: sooner than a mapping of it is touched.
  virtual bool is_cold() const { return false; }

 protected:
  // As read_at; the range is known to lie inside the file, and the caller adds the uri.
  virtual void do_read_at(uint64_t offset, std::span<std::byte> out) = 0;

 private:
  std::string uri_;
  uint64_t size_;
  std::atomic<uint64_t> bytes_read_ = 0;
};

}  // namespace veturbo::storage
