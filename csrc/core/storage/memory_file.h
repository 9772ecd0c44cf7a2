#pragma once

#include <memory>
#include <span>
#include <string>

#include "storage/readable_file.h"
#include "storage/writable_file.h"

namespace veturbo::storage {

// A file whose bytes are in memory already.
class MemoryFile final : public ReadableFile {
 public:
  // `name` stands for it in errors; `owner` keeps the bytes.
  MemoryFile(std::string name, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  ReadTraits traits() const override;
  bool is_near() const override { return true; }

 protected:
  void do_read_at(uint64_t offset, std::span<std::byte> out) override;

 private:
  const std::byte* data_;
  std::shared_ptr<const void> owner_;
  int cpus_;
};

// One that is to be written into memory, which is as large as what is written in all.
class MemoryTarget final : public WritableFile {
 public:
  explicit MemoryTarget(std::span<std::byte> memory);

  WriteTraits traits() const override;

 protected:
  void do_write_at(uint64_t offset, std::span<const std::byte> bytes) override;
  void do_commit() override {}

 private:
  std::byte* data_;
  int cpus_;
};

}  // namespace veturbo::storage
