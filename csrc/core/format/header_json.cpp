#include "format/header_json.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/concat.h"
#include "base/error.h"
#include "base/readable.h"
#include "format/json_cursor.h"
#include "format/repeated_name.h"

namespace veturbo::format {

namespace {

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr size_t kMostShown = 64;  // of a text that has no business to be longer

// Few entries are shorter. Where they are, the lists have to grow, and where they are not, memory is reserved and not touched.
constexpr size_t kBytesOfAnEntry = 96;

class HeaderReader {
 public:
  explicit HeaderReader(std::string_view json) : json_(json, kHeaderLengthBytes) {
    header_.tensors.reserve(json.size() / kBytesOfAnEntry);
    name_offsets_.reserve(json.size() / kBytesOfAnEntry);
  }

  SafetensorsHeader read() {
    if (!json_.is_at_end() && !json_.is_at('{')) {
      throw fault("not a safetensors file: its header does not begin with '{'");
    }
    json_.expect('{');
    for (bool more = json_.has_member('}'); more; more = json_.has_next_member('}')) {
      const uint64_t offset = json_.offset();
      const std::string_view name = json_.key(buffer_);
      if (name == kMetadataKey) {
        read_metadata(offset);
      } else {
        read_tensor(name);
        name_offsets_.push_back(static_cast<uint32_t>(offset));
      }
    }
    json_.expect_end();
    if (const std::optional<size_t> repeated = find_repeated_name(header_.tensors)) {
      throw repeated_name(header_.tensors[*repeated].name, name_offsets_[*repeated]);
    }
    return std::move(header_);
  }

 private:
  void read_metadata(uint64_t offset) {
    if (header_.metadata) {
      throw repeated_name(kMetadataKey, offset);
    }
    if (!json_.take('{')) {
      throw wrong_value(concat(kMetadataKey, " must be an object of strings, not "));
    }
    header_.metadata.emplace();
    for (bool more = json_.has_member('}'); more; more = json_.has_next_member('}')) {
      const uint64_t key_offset = json_.offset();
      std::string key(json_.key(buffer_));
      if (!json_.is_at('"')) {
        throw wrong_value(
            concat("the value of \"", readable(key, kMostShown), "\" in ", kMetadataKey, " must be a string, not "));
      }
      std::string value(json_.string(buffer_));
      const auto [added, is_new] = header_.metadata->try_emplace(std::move(key), std::move(value));
      if (!is_new) {
        throw fault(concat("the key \"", readable(added->first, kMostShown), "\" stands twice in ", kMetadataKey), key_offset);
      }
    }
  }

  void read_tensor(std::string_view name) {
    TensorEntry& tensor = header_.tensors.emplace_back();
    tensor.name = std::string(name);
    try {
      read_entry(tensor);
    } catch (Error& error) {
      throw error.in_tensor(tensor.name);
    }
  }

  void read_entry(TensorEntry& tensor) {
    const uint64_t begin = json_.offset();
    if (!json_.take('{')) {
      throw wrong_value("its entry must be an object, not ");
    }
    bool has_dtype = false;
    bool has_shape = false;
    bool has_offsets = false;
    const auto once = [](bool& has_field, std::string_view field, uint64_t offset) {
      if (std::exchange(has_field, true)) {
        throw fault(concat("its ", field, " stands twice"), offset);
      }
    };
    for (bool more = json_.has_member('}'); more; more = json_.has_next_member('}')) {
      const uint64_t offset = json_.offset();
      const std::string_view field = json_.key(buffer_);
      if (field == "dtype") {
        once(has_dtype, "dtype", offset);
        read_dtype(tensor);
      } else if (field == "shape") {
        once(has_shape, "shape", offset);
        read_shape(tensor);
      } else if (field == "data_offsets") {
        once(has_offsets, "data_offsets", offset);
        read_offsets(tensor);
      } else {
        json_.skip_value();
      }
    }
    if (!has_dtype || !has_shape || !has_offsets) {
      throw fault(concat("its entry has no ", !has_dtype ? "dtype" : !has_shape ? "shape" : "data_offsets"), begin);
    }
  }

  void read_dtype(TensorEntry& tensor) {
    if (!json_.is_at('"')) {
      throw wrong_value("dtype must be a string, not ");
    }
    const uint64_t offset = json_.offset();
    const std::string_view name = json_.string(buffer_);
    if (name == dtype_name(last_dtype_)) {
      tensor.dtype = last_dtype_;  // as in most files
      return;
    }
    const std::optional<DType> dtype = dtype_from_name(name);
    if (!dtype) {
      throw fault(concat("unknown dtype \"", readable(name, kMostShown), "\""), offset);
    }
    tensor.dtype = last_dtype_ = *dtype;
  }

  void read_shape(TensorEntry& tensor) {
    read_naturals("shape must be an array of non-negative integers, not ");
    tensor.shape = naturals_;
  }

  void read_offsets(TensorEntry& tensor) {
    const uint64_t offset = json_.offset();
    read_naturals("data_offsets must be an array of 2 non-negative integers, not ");
    if (naturals_.size() != 2) {
      throw fault(concat("data_offsets has ", naturals_.size(), " numbers, it must have 2"), offset);
    }
    tensor.begin = naturals_[0];
    tensor.end = naturals_[1];
  }

  // Into naturals_. `rule` is what to say of anything else.
  void read_naturals(std::string_view rule) {
    naturals_.clear();
    if (!json_.take('[')) {
      throw wrong_value(rule);
    }
    for (bool more = json_.has_member(']'); more; more = json_.has_next_member(']')) {
      uint64_t& number = naturals_.emplace_back();
      if (!json_.natural(number)) {
        throw wrong_value(concat(rule, "of "));
      }
    }
  }

  static Error fault(const std::string& cause, uint64_t offset) { return Error(ErrorKind::kFormat, cause).at_offset(offset); }
  Error fault(const std::string& cause) { return fault(cause, json_.offset()); }

  static Error repeated_name(std::string_view name, uint64_t offset) {
    return fault("the name stands twice in the header", offset).in_tensor(name);
  }

  Error wrong_value(std::string_view rule) {
    const uint64_t offset = json_.offset();
    return fault(concat(rule, json_.describe_value()), offset);
  }

  JsonCursor json_;
  SafetensorsHeader header_;
  std::vector<uint32_t> name_offsets_;  // of each tensor; a header is not as long as 4 GiB
  std::vector<uint64_t> naturals_;
  DType last_dtype_ = DType::kF32;
  std::string buffer_;
};

std::string quote(const std::string& text, std::string_view what) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    throw Error(ErrorKind::kInvalidArgument,
                concat(what, " is not valid UTF-8: ",
                       nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)));
  }
}

}  // namespace

SafetensorsHeader parse_header_json(std::string_view json) {
  return HeaderReader(json).read();
}

std::string serialize_header_json(std::span<const TensorEntry> tensors, const std::optional<Metadata>& metadata) {
  std::string json = "{";
  const auto separate = [&] {
    if (json.back() != '{') {
      json += ',';
    }
  };
  if (metadata) {
    json += concat("\"", kMetadataKey, "\":{");
    for (const auto& [key, value] : *metadata) {
      separate();
      json += quote(key, "a metadata key") + ":" + quote(value, concat("the metadata value of ", key));
    }
    json += '}';
  }
  for (const TensorEntry& tensor : tensors) {
    if (tensor.name == kMetadataKey) {
      throw Error(ErrorKind::kInvalidArgument, "the format keeps this name for metadata: rename the tensor")
          .in_tensor(tensor.name);
    }
    separate();
    json += quote(tensor.name, "a tensor's name") + ":{\"dtype\":\"";
    json += dtype_name(tensor.dtype);
    json += "\",\"shape\":[";
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      json += i > 0 ? "," : "";
      json += std::to_string(tensor.shape[i]);
    }
    json += "],\"data_offsets\":[" + std::to_string(tensor.begin) + "," + std::to_string(tensor.end) + "]}";
  }
  return json + "}";
}

}  // namespace veturbo::format
