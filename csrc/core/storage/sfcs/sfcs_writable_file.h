#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "storage/sfcs/part.h"
#include "storage/writable_file.h"

namespace veturbo::storage::sfcs {

enum class Removal { kIfEmpty, kWithContent };

// A file of SFCS that is being saved: written elsewhere and renamed when it is whole, since a writer of the name itself would
// empty the old file first.
//
// One writer writes one file, append only. A large save writes several files at once, parts of whole blocks, and has the server
// join them. A save works in a folder of its own, whose name is always the same for a target: so the next save finds what a
// killed one has left, and removes it along with its own. Who has the folder's lock file open has the folder; another save at the
// same time takes a folder of another name. Should a save lose its lock while it is held up, nobody else has parts of its names:
// it then fails, and does not join what is not its own.
class SfcsWritableFile final : public WritableFile {
 public:
  SfcsWritableFile(std::string uri, std::string_view path, uint64_t size);
  ~SfcsWritableFile() override;

  WriteTraits traits() const override;
  std::vector<std::string> warnings() const override;

 protected:
  void do_write_at(uint64_t offset, std::span<const std::byte> bytes) override;
  void do_commit() override;

 private:
  void look_at_target();
  uint64_t find_block_size();
  void make_folder();
  void make_folder(const std::string& path, Removal on_failure);
  Part& part_at(size_t index);
  uint64_t end_of_part(size_t index) const;
  uint64_t written() const;
  void join_parts();
  void rename_first_part();
  void remove_folder();
  template <typename Call>
  void on_connection(Call&& call);

  std::unique_ptr<Mount::User> mount_;
  Retries retries_;
  std::string target_;
  std::string concat_dir_;
  uint64_t size_;           // 0: not known
  uint64_t part_size_ = 0;  // 0: there is one part, of whatever size
  std::string token_;       // of this save alone
  std::string folder_;      // of the parts; empty: nothing to remove
  std::unique_ptr<Part> lock_;
  std::mutex mutex_;
  std::deque<std::unique_ptr<Part>> parts_;  // each belongs to who writes it
};

}  // namespace veturbo::storage::sfcs
