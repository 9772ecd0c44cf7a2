#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/stream_writer.h"
#include "storage/readable_file.h"
#include "torch/cipher.h"

// Files piece by piece: for formats that PyTorch itself reads and writes, and for programs that copy files.
namespace veturbo {

class FileReader : public torch::CustomClassHolder {
 public:
  FileReader(const std::string& file, const OptionalCipher& cipher);

  int64_t size() const { return static_cast<int64_t>(file_->size()); }
  // Fills a contiguous CPU tensor with the bytes from `offset` on: a large one by as many threads as pay.
  void read_into(const at::Tensor& tensor, int64_t offset) const;
  std::vector<std::string> warnings() const;

 private:
  std::unique_ptr<storage::ReadableFile> file_;
};

// Written from its start on, with the guarantees of a save.
class FileWriter : public torch::CustomClassHolder {
 public:
  FileWriter(const std::string& file, const OptionalCipher& cipher);

  // Appends the bytes of a contiguous CPU tensor.
  void write(const at::Tensor& tensor);
  // Gives the file its name, and the warnings as SaveJob::result(). Ends the writing, well or badly.
  std::vector<std::string> commit();
  // Ends the writing and leaves nothing of the file, as does the writer's death before a commit().
  void discard();

 private:
  engine::StreamWriter& stream() const;

  std::unique_ptr<engine::StreamWriter> stream_;
};

}  // namespace veturbo
