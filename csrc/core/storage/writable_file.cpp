#include "storage/writable_file.h"

#include "base/error.h"

namespace veturbo::storage {

void WritableFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  try {
    do_write_at(offset, bytes);
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

void WritableFile::commit() {
  try {
    do_commit();
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

std::vector<std::string> WritableFile::warnings() const {
  std::lock_guard lock(mutex_);
  return warnings_;
}

void WritableFile::warn(std::string text) {
  std::lock_guard lock(mutex_);
  warnings_.push_back(uri_ + ": " + std::move(text));
}

}  // namespace veturbo::storage
