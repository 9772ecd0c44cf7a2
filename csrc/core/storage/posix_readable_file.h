#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "base/unique_fd.h"
#include "storage/file_system.h"
#include "storage/open.h"
#include "storage/reader_handles.h"
#include "storage/system_calls.h"

namespace veturbo::storage {

// A regular file, read through the page cache or, with direct I/O, past it.
//
// O_DIRECT wants offset, length and memory aligned (see DirectRead). A file system that refuses is read through the cache
// instead.
//
// What does not lie on a disk of this machine may be near or far. It is found to be far when a read has waited long: the
// header's, a page's that is read for this, or else the first chunk's. From then on it is read by many readers, each through a
// handle of its own, on which it asks for a whole chunk before it waits for the first page of that. What comes from far is kept
// in the page cache, for the next process and for those that load the same file now; past it goes only what it would not keep.
class PosixReadableFile final : public ReadableFile {
 public:
  static std::unique_ptr<PosixReadableFile> open(const std::string& uri, const std::string& path, DirectIo direct_io,
                                                 const SystemCalls& calls = system_calls());

  ReadTraits traits() const override;
  MappedRegion map() const override;
  std::string too_far_to_map() const override;
  bool is_near() const override { return is_local(file_system_); }
  bool is_cold() const override { return uses_direct_io(); }
  bool uses_direct_io() const { return direct_.load(std::memory_order_acquire); }

 protected:
  void do_read_at(uint64_t offset, std::span<std::byte> out) override;

 private:
  PosixReadableFile(std::string uri, uint64_t size, UniqueFd fd, DirectIo direct_io, const SystemCalls& calls);

  bool is_far() const { return far_.load(std::memory_order_relaxed); }
  bool is_cold_and_remote() const { return !cached_ && file_system_.kind == FileSystem::Kind::kRemote; }
  void find_distance() const;
  void use_direct_io(UniqueFd fd) const;
  void read(uint64_t offset, std::span<std::byte> out);
  void read_cached(uint64_t offset, std::span<std::byte> out);
  // False when the file system refuses or comes to nothing; what was read before that is simply read again.
  bool read_direct(int fd, uint64_t offset, std::span<std::byte> out);

  const SystemCalls& calls_;
  const FileSystem file_system_;
  const DirectIo direct_io_;
  const int cpus_;  // that are of use for reading
  // What turns out while the file is being read, or when it is first asked for traits().
  mutable ReaderHandles handles_;
  mutable std::unique_ptr<ReaderHandles> direct_handles_;
  mutable uint64_t memory_alignment_ = 1;  // for direct I/O
  mutable std::atomic<bool> direct_ = false;
  mutable std::once_flag distance_asked_;
  mutable bool cached_ = true;
  mutable std::atomic<bool> far_ = false;
};

}  // namespace veturbo::storage
