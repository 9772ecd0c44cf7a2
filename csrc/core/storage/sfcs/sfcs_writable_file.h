#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "storage/sfcs/part.h"
#include "storage/writable_file.h"

namespace veturbo::storage::sfcs {

// A file of SFCS that is being saved: written under another name and renamed when it is whole, since a writer of the name itself
// would empty the old file first.
//
// One writer writes one file, append only. A large save writes several files at once, parts of whole blocks in a directory of its
// own, and has the server join them. What a killed save has left is found by the next one of the same file, by its name, and goes
// with it.
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
  void stage(const std::string& folder);
  void stage_parts(const std::string& folder);
  void remove_if_empty(const std::string& folder);
  std::unique_ptr<Part> create(const std::string& path);
  uint64_t end_of_part(size_t index) const;
  void join_parts();
  void rename(const std::string& from);
  void remove_stage();
  template <typename Call>
  void on_connection(Call&& call);

  std::unique_ptr<Mount::User> mount_;
  Retries retries_;
  std::string target_;
  uint64_t size_;           // 0: not known
  uint64_t part_size_ = 0;  // 0: there is one part, of whatever size
  std::string stage_;       // the directory of the parts, or the one part; empty: nothing to remove
  std::unique_ptr<Part> lock_;
  std::vector<std::unique_ptr<Part>> parts_;  // each belongs to who writes it
};

}  // namespace veturbo::storage::sfcs
