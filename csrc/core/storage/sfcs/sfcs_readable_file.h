#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "storage/readable_file.h"
#include "storage/sfcs/file_info.h"
#include "storage/sfcs/mount.h"

namespace veturbo::storage::sfcs {

// A file of SFCS, read through as many handles as there are readers at once. All of them are of the file that was there when it
// was opened: when that is replaced meanwhile, those that are open go on, and no more are opened.
class SfcsReadableFile final : public ReadableFile {
 public:
  static std::unique_ptr<SfcsReadableFile> open(const std::string& uri, std::string_view path);
  ~SfcsReadableFile() override;

  ReadTraits traits() const override;
  std::vector<std::string> warnings() const override;

 protected:
  void do_read_at(uint64_t offset, std::span<std::byte> out) override;

 private:
  struct Opened {
    std::string path;
    std::unique_ptr<Mount::User> mount;
    std::unique_ptr<Retries> retries;
    FileInfo info;
    Handle handle;
  };

  SfcsReadableFile(std::string uri, Opened opened);

  Handle open_again();
  Handle take();
  void give(Handle handle);
  void give_up();
  size_t read_some(const Handle& handle, uint64_t offset, std::span<std::byte> out) const;

  const std::string path_;
  const std::unique_ptr<Mount::User> mount_;
  const std::unique_ptr<Retries> retries_;
  const FileInfo info_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Handle> idle_;
  int taken_ = 0;
  std::string why_no_more_;  // handles are opened; empty: they are
};

}  // namespace veturbo::storage::sfcs
