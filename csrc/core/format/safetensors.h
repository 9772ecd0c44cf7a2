#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/dtype.h"

// A safetensors file: an unsigned 64-bit little-endian N, N bytes of JSON, and the tensors' bytes without holes.
// Described at https://github.com/huggingface/safetensors#format; where that leaves a choice, we read what is unambiguous and
// write what the reference implementation writes, byte for byte.
namespace veturbo::format {

constexpr uint64_t kHeaderLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // offsets in bytes from the start of the data
  uint64_t end = 0;

  uint64_t num_bytes() const { return end - begin; }
};

// Sorted by key: the reference writer's order of metadata varies from run to run, ours does not.
using Metadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  uint64_t data_offset = 0;          // bytes from the start of the file to the start of the data
  std::vector<TensorEntry> tensors;  // in the order of their data
  std::optional<Metadata> metadata;  // a file may have an empty one or none
};

// The number of bytes of a tensor, or nothing when it overflows 64 bits or its bits do not fill bytes.
std::optional<uint64_t> tensor_bytes(DType dtype, std::span<const uint64_t> shape);

// N, from the first bytes of a file of `file_size` bytes. Throws Error(kFormat) when the file cannot have such a header.
uint64_t parse_header_length(std::span<const std::byte> first_bytes, uint64_t file_size);

// `json` is the N bytes. Throws Error(kFormat), with the offset in the file at which the fault was seen.
SafetensorsHeader parse_header(std::string_view json, uint64_t file_size);

// Whether these first bytes of a file are the start of a safetensors header that parse_header could accept.
bool looks_like_safetensors(std::span<const std::byte> first_bytes, uint64_t file_size);

// Sorts `tensors` (name, dtype and shape given) as the writer does and fills in their offsets.
// Throws Error(kInvalidArgument) for a tensor whose size the format cannot express.
void lay_out(std::vector<TensorEntry>& tensors);

// The first bytes of a file up to its data, padded so that the data is 8-byte aligned. `tensors` as lay_out left them.
// Throws Error(kInvalidArgument) when a name or a metadata text is not UTF-8, or when the header grows too long.
std::string serialize_header(std::span<const TensorEntry> tensors, const std::optional<Metadata>& metadata);

}  // namespace veturbo::format
