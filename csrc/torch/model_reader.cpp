#include "torch/model_reader.h"

#include <ATen/Functions.h>

#include <functional>
#include <numeric>
#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "engine/cipher.h"
#include "engine/model_file.h"
#include "storage/memory_file.h"
#include "torch/dtype.h"
#include "torch/tensor_memory.h"

namespace veturbo {

namespace {

std::unique_ptr<storage::ReadableFile> open_bytes(const at::Tensor& bytes, const std::string& name) {
  if (bytes.scalar_type() != at::kByte || !bytes.is_cpu() || !bytes.is_contiguous()) {
    throw Error(ErrorKind::kInvalidArgument, "a file in memory must be a contiguous tensor of dtype uint8 on the CPU");
  }
  const auto* data = static_cast<const std::byte*>(bytes.const_data_ptr());
  return std::make_unique<storage::MemoryFile>(name, std::span(data, bytes.nbytes()), std::make_shared<at::Tensor>(bytes));
}

}  // namespace

TensorSpec spec_of(const format::TensorEntry& entry) {
  try {
    const std::optional<at::ScalarType> type = to_scalar_type(entry.dtype);
    if (!type) {
      throw Error(ErrorKind::kFormat, concat("PyTorch has no dtype for ", format::dtype_name(entry.dtype),
                                             ": leave this tensor out by giving the names of the others"));
    }
    return {*type, to_tensor_sizes(entry.dtype, entry.shape)};
  } catch (Error& error) {
    throw error.in_tensor(entry.name);
  }
}

uint64_t num_bytes(const TensorSpec& spec) {
  const auto count = std::accumulate(spec.sizes.begin(), spec.sizes.end(), uint64_t{1}, std::multiplies<>());
  return count * c10::scalarTypeToTypeMeta(spec.type).itemsize();
}

ModelReader::ModelReader(Source source) : source_(std::move(source)), header_(engine::read_safetensors_header(*source_.file)) {}

ModelReader::ModelReader(const at::Tensor& bytes, const std::string& name)
    : ModelReader(Source{open_bytes(bytes, name), std::nullopt}) {}

TensorList ModelReader::list_tensors() const {
  TensorList list;
  auto& [names, dtypes, shapes] = list;
  for (const format::TensorEntry& entry : header_.tensors) {
    names.push_back(entry.name);
    dtypes.emplace_back(format::dtype_name(entry.dtype));
    try {
      shapes.push_back(to_sizes(entry.shape));
    } catch (Error& error) {
      throw error.in_tensor(entry.name).in_file(uri());
    }
  }
  return list;
}

std::optional<StringDict> ModelReader::metadata() const {
  if (!header_.metadata) {
    return std::nullopt;
  }
  StringDict metadata;
  for (const auto& [key, value] : *header_.metadata) {
    metadata.insert(key, value);
  }
  return metadata;
}

std::vector<int64_t> ModelReader::tensor_sizes() const {
  std::vector<int64_t> sizes;
  sizes.reserve(header_.tensors.size());
  for (const format::TensorEntry& entry : header_.tensors) {
    sizes.push_back(static_cast<int64_t>(entry.num_bytes()));
  }
  return sizes;
}

int64_t ModelReader::window_bytes() const {
  const storage::ReadTraits traits = source_.file->traits();
  return static_cast<int64_t>(traits.chunk_size) * traits.parallelism;
}

bool ModelReader::is_mappable() const {
  return source_.file->traits().mappable && source_.file->too_far_to_map().empty();
}

const format::TensorEntry* ModelReader::find(std::string_view name) const {
  std::call_once(indexed_, [this] {
    index_.reserve(header_.tensors.size());
    for (const format::TensorEntry& entry : header_.tensors) {
      index_.emplace(entry.name, &entry);
    }
  });
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : found->second;
}

const format::TensorEntry& ModelReader::at(std::string_view name) const {
  const format::TensorEntry* const entry = find(name);
  if (entry == nullptr) {
    throw Error(ErrorKind::kInvalidArgument, concat("the file has no tensor named ", name)).in_file(uri());
  }
  return *entry;
}

at::Tensor ModelReader::read_tensor(const std::string& name) const {
  try {
    const format::TensorEntry& entry = at(name);
    const TensorSpec spec = spec_of(entry);
    const at::Tensor tensor = at::empty(spec.sizes, at::TensorOptions(spec.type));
    source_.file->read_at(header_.data_offset + entry.begin,
                          {static_cast<std::byte*>(tensor.mutable_data_ptr()), entry.num_bytes()});
    return tensor;
  } catch (Error& error) {
    throw error.in_file(uri());
  }
}

at::Tensor ModelReader::meta_tensor(const std::string& name) const {
  try {
    const TensorSpec spec = spec_of(at(name));
    return at::empty(spec.sizes, at::TensorOptions(spec.type).device(at::kMeta));
  } catch (Error& error) {
    throw error.in_file(uri());
  }
}

std::shared_ptr<MappedRegion> ModelReader::mapping() {
  std::lock_guard lock(mutex_);
  if (!mapping_) {
    mapping_ = std::make_shared<MappedRegion>(source_.file->map());
  }
  return mapping_;
}

at::Tensor ModelReader::map_tensor(const std::string& name) {
  return map_tensor(at(name));
}

at::Tensor ModelReader::map_tensor(const format::TensorEntry& entry) {
  try {
    const TensorSpec spec = spec_of(entry);
    const std::shared_ptr<MappedRegion> whole = mapping();
    const uint64_t offset = header_.data_offset + entry.begin;
    const uint64_t size = entry.num_bytes();
    if (offset % c10::scalarTypeToTypeMeta(spec.type).itemsize() == 0) {
      return tensor_over(whole, offset, size, spec.sizes, spec.type, Reclaim::kKeepPages);
    }
    // The header's length need not be a multiple of anything; a tensor that comes to lie askew for its type is copied.
    const at::Tensor askew = tensor_over(whole, offset, size, {static_cast<int64_t>(size)}, at::kByte, Reclaim::kKeepPages);
    return at::empty({0}, at::TensorOptions(spec.type)).set_(askew.clone().storage(), 0, spec.sizes);
  } catch (Error& error) {
    throw error.in_file(uri());
  }
}

}  // namespace veturbo
