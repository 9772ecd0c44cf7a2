#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/mapped_region.h"
#include "crypto/keystream.h"
#include "storage/readable_file.h"
#include "storage/writable_file.h"

// Encrypted files as if they were plain: everything that reads or writes a file does so with an encrypted one, and no byte is
// touched a second time after it has left the cache.
namespace veturbo::storage {

class DecryptedFile final : public ReadableFile {
 public:
  // The stream of `keystream` begins at byte `begin` of the file; what stands before is not of this file.
  DecryptedFile(std::unique_ptr<ReadableFile> ciphertext, uint64_t begin, std::shared_ptr<const crypto::Keystream> keystream);

  ReadTraits traits() const override;
  MappedRegion map() const override;
  bool is_near() const override { return ciphertext_->is_near(); }
  std::vector<std::string> warnings() const override { return ciphertext_->warnings(); }

  // For those who decrypt elsewhere.
  ReadableFile& ciphertext() const { return *ciphertext_; }
  uint64_t begin() const { return begin_; }

 protected:
  void do_read_at(uint64_t offset, std::span<std::byte> out) override;

 private:
  std::unique_ptr<ReadableFile> ciphertext_;
  uint64_t begin_;
  std::shared_ptr<const crypto::Keystream> keystream_;
};

class EncryptedFile final : public WritableFile {
 public:
  // Writes `header` first, plain. `warning`, if any, is added to the file's.
  EncryptedFile(std::unique_ptr<WritableFile> ciphertext, const std::string& header,
                std::shared_ptr<const crypto::Keystream> keystream, const std::string& warning);

  WriteTraits traits() const override;
  std::vector<std::string> warnings() const override;

 protected:
  void do_write_at(uint64_t offset, std::span<const std::byte> bytes) override;
  void do_commit() override { ciphertext_->commit(); }

 private:
  MappedRegion take_buffer();
  void give_buffer(MappedRegion buffer);

  std::unique_ptr<WritableFile> ciphertext_;
  uint64_t begin_;
  std::shared_ptr<const crypto::Keystream> keystream_;
  uint64_t alignment_;
  uint64_t piece_bytes_;
  std::mutex mutex_;
  std::vector<MappedRegion> free_;  // as many as there were writers at once
};

}  // namespace veturbo::storage
