#include "torch/file_stream.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "engine/cipher.h"
#include "torch/errors.h"

namespace veturbo {

namespace {

void check_bytes(const at::Tensor& tensor, const std::string& uri) {
  if (!tensor.is_cpu() || !tensor.is_contiguous()) {
    throw Error(ErrorKind::kInvalidArgument, "only contiguous CPU tensors can be read into and written").in_file(uri);
  }
}

}  // namespace

FileReader::FileReader(const std::string& file, const OptionalCipher& cipher)
    : file_(engine::open_for_read(file, {}, get(cipher))) {}

void FileReader::read_into(const at::Tensor& tensor, int64_t offset) const {
  check_bytes(tensor, file_->uri());
  if (offset < 0) {
    throw Error(ErrorKind::kInvalidArgument, "an offset cannot be negative").in_file(file_->uri());
  }
  file_->read_at(static_cast<uint64_t>(offset), {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
}

FileWriter::FileWriter(const std::string& file, const OptionalCipher& cipher)
    : file_(engine::open_for_write(file, 0, get(cipher))) {}

void FileWriter::write(const at::Tensor& tensor) {
  if (!file_) {
    throw Error(ErrorKind::kInvalidArgument, "the file has been committed or discarded");
  }
  check_bytes(tensor, file_->uri());
  file_->write_at(offset_, {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  offset_ += tensor.nbytes();
}

std::vector<std::string> FileWriter::commit() {
  if (!file_) {
    throw Error(ErrorKind::kInvalidArgument, "the file has been committed or discarded");
  }
  const std::unique_ptr<storage::WritableFile> file = std::move(file_);
  file->commit();
  return warnings_of(*file);
}

void FileWriter::discard() {
  file_.reset();
}

std::vector<std::string> warnings_of(const storage::WritableFile& file) {
  std::vector<std::string> warnings = file.warnings();
  std::transform(warnings.begin(), warnings.end(), warnings.begin(), valid_utf8);
  return warnings;
}

}  // namespace veturbo
