#pragma once

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/mapped_region.h"
#include "format/safetensors.h"
#include "storage/open.h"
#include "torch/cipher.h"
#include "torch/transfer.h"

namespace veturbo {

using StringDict = c10::Dict<std::string, std::string>;

// What PyTorch makes of a tensor of the file.
struct TensorSpec {
  at::ScalarType type;
  std::vector<int64_t> sizes;
};

// Throws an Error that names the tensor where PyTorch has no such dtype or shape.
TensorSpec spec_of(const format::TensorEntry& entry);
uint64_t num_bytes(const TensorSpec& spec);

// Names, dtypes and shapes as the file has them ("F32"; two elements a byte for F4), in the order of the data.
using TensorList = std::tuple<std::vector<std::string>, std::vector<std::string>, std::vector<std::vector<int64_t>>>;

// A safetensors file that is open, its header read: what loads of all or a few of its tensors begin with.
class ModelReader : public torch::CustomClassHolder {
 public:
  explicit ModelReader(Source source);
  // A file in memory: a contiguous tensor of dtype uint8 on the CPU, which must not change. `name` stands for it in errors.
  ModelReader(const at::Tensor& bytes, const std::string& name);

  TensorList list_tensors() const;
  // None when the file has none, which is not an empty one.
  std::optional<StringDict> metadata() const;
  // How many bytes each tensor has, in the same order.
  std::vector<int64_t> tensor_sizes() const;
  // How many bytes are to be read at once for the storage to give all it can.
  int64_t window_bytes() const;
  // Whether map_tensor() works, and costs no waiting for a far storage at every few pages.
  bool is_mappable() const;
  // Whether reading all of it is quicker than touching all of a mapping.
  bool is_cold() const { return source_.file->is_cold(); }
  // How many bytes were asked of the storage so far.
  int64_t bytes_read() const { return static_cast<int64_t>(source_.file->bytes_read()); }

  // The tensor, on the CPU, read by the calling thread: the quickest way to a small one.
  at::Tensor read_tensor(const std::string& name) const;
  // A tensor of the same dtype and shape on the meta device.
  at::Tensor meta_tensor(const std::string& name) const;
  // The tensor over a private mapping of the file, of which the reader has one: whoever asks again sees what has been written to
  // the tensor meanwhile. It is valid without the reader.
  at::Tensor map_tensor(const std::string& name);
  at::Tensor map_tensor(const format::TensorEntry& entry);

  const std::string& uri() const { return source_.file->uri(); }
  const Source& source() const { return source_; }
  const format::SafetensorsHeader& header() const { return header_; }
  // Null when the file has no such tensor.
  const format::TensorEntry* find(std::string_view name) const;
  // Throws Error(kInvalidArgument) that names the file.
  const format::TensorEntry& at(std::string_view name) const;

 private:
  std::shared_ptr<MappedRegion> mapping();

  const Source source_;
  const format::SafetensorsHeader header_;
  mutable std::once_flag indexed_;
  mutable std::unordered_map<std::string_view, const format::TensorEntry*> index_;
  std::mutex mutex_;
  std::shared_ptr<MappedRegion> mapping_;  // once it has been asked for
};

}  // namespace veturbo
