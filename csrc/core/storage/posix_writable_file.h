#pragma once

#include <sys/types.h>

#include <atomic>
#include <string>

#include "base/unique_fd.h"
#include "storage/system_calls.h"
#include "storage/writable_file.h"

namespace veturbo::storage {

// A regular file, written beside its target and renamed over it, so that at every moment the old or the new file is whole under
// the name, and whoever has the old one mapped keeps it.
//
// A large file on a local disk is written past the page cache, in which it would only push out what is read again: what remains
// for the end is to have the disk empty its own cache.
//
// The file beside the target is locked while its writer lives. On file systems of this machine, of which locks are known to be
// seen by all who look, a save first removes those beside its target that nobody locks: of processes that were killed.
//
// File systems that cannot do all of that still get a correct file: one that refuses to set sizes is written in order by one
// thread, one that refuses to rename gets the finished file copied to the name. warnings() then name the guarantee that is lost.
class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(std::string uri, const std::string& path, uint64_t size, const SystemCalls& calls = system_calls());
  ~PosixWritableFile() override;

  WriteTraits traits() const override;
  bool uses_direct_io() const { return direct_.load(std::memory_order_relaxed); }

 protected:
  void do_write_at(uint64_t offset, std::span<const std::byte> bytes) override;
  void do_commit() override;

 private:
  void create_sibling();
  void remove_sibling() const;
  bool lock_sibling();
  void remove_abandoned(const std::string& path) const;
  void remove_all_abandoned() const;
  void set_size(uint64_t size);
  void open_direct(uint64_t size);
  void write_direct(uint64_t offset, std::span<const std::byte> bytes);
  UniqueFd open(const std::string& path, int flags, mode_t mode) const;
  void sync(int fd, const char* what);
  void close(UniqueFd& fd);
  void copy_to_target();
  void sync_directory();

  const SystemCalls& calls_;
  std::string target_;     // the path with symbolic links followed
  std::string directory_;  // of the target
  std::string sibling_;    // empty when there is nothing left to remove
  bool target_exists_ = false;
  mode_t mode_ = 0666;
  bool in_order_ = false;
  UniqueFd fd_;
  UniqueFd direct_fd_;
  int direct_writes_ = 0;
  UniqueFd lock_;  // the same open file as fd_, which is closed before the file has its name
  std::atomic<bool> direct_ = false;
};

}  // namespace veturbo::storage
