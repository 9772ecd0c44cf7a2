#include "format/safetensors.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "base/concat.h"
#include "base/error.h"
#include "format/header_json.h"

namespace veturbo::format {

namespace {

uint64_t load_little_endian(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < kHeaderLengthBytes; ++i) {
    value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  }
  return value;
}

std::string shape_text(std::span<const uint64_t> shape) {
  constexpr size_t kMostShown = 16;
  std::string text = "[";
  for (size_t i = 0; i < std::min(shape.size(), kMostShown); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  }
  return text + (shape.size() > kMostShown ? ", ...]" : "]");
}

void check_no_holes(const SafetensorsHeader& header, uint64_t file_size) {
  const uint64_t data_bytes = file_size - header.data_offset;
  uint64_t expected = 0;
  for (const TensorEntry& tensor : header.tensors) {
    const auto fault = [&](const std::string& cause) {
      // The tensor before it may already end where no file does.
      return Error(ErrorKind::kFormat, cause)
          .in_tensor(tensor.name)
          .at_offset(header.data_offset + std::min(expected, data_bytes));
    };
    if (tensor.begin > tensor.end) {
      throw fault(concat("data_offsets [", tensor.begin, ", ", tensor.end, "] end before they begin"));
    }
    if (tensor.begin < expected) {
      throw fault(concat("its data begins at ", tensor.begin, ", inside the tensor before it, which ends at ", expected));
    }
    if (tensor.begin > expected) {
      throw fault(concat("its data begins at ", tensor.begin, " and leaves a hole after ", expected));
    }
    const std::optional<uint64_t> bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes) {
      throw fault(concat("the size of shape ", shape_text(tensor.shape), " of ", dtype_name(tensor.dtype),
                         " overflows 64 bits or does not fill whole bytes"));
    }
    if (*bytes != tensor.num_bytes()) {
      throw fault(concat("shape ", shape_text(tensor.shape), " of ", dtype_name(tensor.dtype), " is ", *bytes,
                         " bytes, but data_offsets span ", tensor.num_bytes()));
    }
    expected = tensor.end;
  }
  if (expected > data_bytes) {
    throw Error(ErrorKind::kFormat,
                concat("the tensors end at ", expected, " but the file has only ", data_bytes, " bytes of data: it is cut short"))
        .at_offset(file_size);
  }
  if (expected < data_bytes) {
    throw Error(ErrorKind::kFormat, concat("the file has ", data_bytes - expected, " bytes after its last tensor"))
        .at_offset(header.data_offset + expected);
  }
}

}  // namespace

std::optional<uint64_t> tensor_bytes(DType dtype, std::span<const uint64_t> shape) {
  uint64_t elements = 1;
  for (const uint64_t dimension : shape) {
    if (__builtin_mul_overflow(elements, dimension, &elements)) {
      return std::nullopt;
    }
  }
  uint64_t bits = 0;
  if (__builtin_mul_overflow(elements, static_cast<uint64_t>(dtype_bits(dtype)), &bits) || bits % 8 != 0) {
    return std::nullopt;
  }
  return bits / 8;
}

uint64_t parse_header_length(std::span<const std::byte> first_bytes, uint64_t file_size) {
  if (file_size < kHeaderLengthBytes || first_bytes.size() < kHeaderLengthBytes) {
    throw Error(ErrorKind::kFormat,
                concat("not a safetensors file: ", file_size, " bytes cannot hold the 8-byte length of a header"))
        .at_offset(file_size);
  }
  const uint64_t length = load_little_endian(first_bytes);
  if (length > kMaxHeaderBytes) {
    throw Error(ErrorKind::kFormat,
                concat("not a safetensors file: it claims a header of ", length, " bytes, the most is ", kMaxHeaderBytes))
        .at_offset(0);
  }
  if (length > file_size - kHeaderLengthBytes) {
    throw Error(ErrorKind::kFormat, concat("the header is ", length, " bytes long but the file has only ",
                                           file_size - kHeaderLengthBytes, " after its length: it is cut short"))
        .at_offset(file_size);
  }
  return length;
}

SafetensorsHeader parse_header(std::string_view json, uint64_t file_size) {
  SafetensorsHeader header = parse_header_json(json);
  header.data_offset = kHeaderLengthBytes + json.size();
  const auto data_order = [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  };
  if (!std::is_sorted(header.tensors.begin(), header.tensors.end(), data_order)) {
    std::stable_sort(header.tensors.begin(), header.tensors.end(), data_order);
  }
  check_no_holes(header, file_size);
  return header;
}

bool looks_like_safetensors(std::span<const std::byte> first_bytes, uint64_t file_size) {
  if (first_bytes.size() < kHeaderLengthBytes) {
    return false;
  }
  const uint64_t length = load_little_endian(first_bytes);
  if (length > kMaxHeaderBytes || length > file_size - kHeaderLengthBytes) {
    return false;
  }
  const std::span<const std::byte> rest = first_bytes.subspan(kHeaderLengthBytes);
  for (const std::byte byte : rest.first(std::min<size_t>(rest.size(), length))) {
    const char c = static_cast<char>(byte);
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
      return c == '{';
    }
  }
  return false;
}

void lay_out(std::vector<TensorEntry>& tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name; });
  uint64_t offset = 0;
  for (TensorEntry& tensor : tensors) {
    const std::optional<uint64_t> bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes || *bytes > std::numeric_limits<int64_t>::max() - offset) {
      throw Error(ErrorKind::kInvalidArgument, concat("shape ", shape_text(tensor.shape), " of ", dtype_name(tensor.dtype),
                                                      " is too large or does not fill whole bytes"))
          .in_tensor(tensor.name);
    }
    tensor.begin = offset;
    tensor.end = offset += *bytes;
  }
}

std::string serialize_header(std::span<const TensorEntry> tensors, const std::optional<Metadata>& metadata) {
  std::string json = serialize_header_json(tensors, metadata);
  json.append((kHeaderLengthBytes - json.size() % kHeaderLengthBytes) % kHeaderLengthBytes, ' ');
  if (json.size() > kMaxHeaderBytes) {
    throw Error(ErrorKind::kInvalidArgument, concat("the header would be ", json.size(), " bytes long, the format's limit is ",
                                                    kMaxHeaderBytes, ": save fewer tensors or less metadata"));
  }
  std::string bytes(kHeaderLengthBytes, '\0');
  for (size_t i = 0; i < kHeaderLengthBytes; ++i) {
    bytes[i] = static_cast<char>(static_cast<uint64_t>(json.size()) >> (8 * i));
  }
  return bytes + json;
}

}  // namespace veturbo::format
