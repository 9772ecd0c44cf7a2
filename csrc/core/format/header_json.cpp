#include "format/header_json.h"

#include <cstddef>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "base/concat.h"
#include "base/error.h"

// A header is read as a stream of JSON events: no tree is built, repeated keys and the way a number was written stay visible
// (a tree would have lost both), and nesting costs no stack.
namespace veturbo::format {

namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

// A pointer into the JSON that notes how far the parser has read, so that an error can name its offset.
class TrackingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TrackingIterator(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}

  reference operator*() const { return *at_; }
  TrackingIterator& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  TrackingIterator operator++(int) {
    TrackingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const TrackingIterator& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(std::string_view json) : begin_(json.data()), furthest_(json.data()) {}

  const char** furthest() { return &furthest_; }
  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(size_t) override {
    switch (where_) {
      case Where::kStart:
        where_ = Where::kTop;
        return true;
      case Where::kTopValue:
        if (name_ == kMetadataKey) {
          header_.metadata.emplace();
          where_ = Where::kMetadata;
        } else {
          begin_entry();
        }
        return true;
      case Where::kUnknown:
        ++depth_;
        return true;
      default:
        return reject("an object");
    }
  }

  bool key(std::string& text) override {
    switch (where_) {
      case Where::kTop:
        if (!names_.insert(text).second) {
          throw fault(concat("the name stands twice in the header")).in_tensor(text);
        }
        name_ = std::move(text);
        where_ = Where::kTopValue;
        return true;
      case Where::kMetadata:
        metadata_key_ = std::move(text);
        if (header_.metadata->contains(metadata_key_)) {
          throw fault(concat("the key \"", metadata_key_, "\" stands twice in ", kMetadataKey));
        }
        where_ = Where::kMetadataValue;
        return true;
      case Where::kEntry:
        begin_field(text);
        return true;
      default:
        return true;  // inside an unknown field
    }
  }

  bool end_object() override {
    switch (where_) {
      case Where::kEntry:
        end_entry();
        where_ = Where::kTop;
        return true;
      case Where::kMetadata:
        where_ = Where::kTop;
        return true;
      case Where::kUnknown:
        return end_nested();
      default:
        return true;
    }
  }

  bool start_array(size_t) override {
    switch (where_) {
      case Where::kShape:
      case Where::kOffsets:
        if (in_array_) {
          return reject("an array");
        }
        in_array_ = true;
        return true;
      case Where::kUnknown:
        ++depth_;
        return true;
      default:
        return reject("an array");
    }
  }

  bool end_array() override {
    if (where_ == Where::kUnknown) {
      return end_nested();
    }
    if (where_ == Where::kOffsets && num_offsets_ != 2) {
      throw entry_fault(concat("data_offsets has ", num_offsets_, " numbers, it must have 2"));
    }
    in_array_ = false;
    where_ = Where::kEntry;
    return true;
  }

  bool string(std::string& text) override {
    switch (where_) {
      case Where::kMetadataValue:
        header_.metadata->emplace(std::move(metadata_key_), std::move(text));
        where_ = Where::kMetadata;
        return true;
      case Where::kDType: {
        const std::optional<DType> dtype = dtype_from_name(text);
        if (!dtype) {
          throw entry_fault(concat("unknown dtype \"", text, "\""));
        }
        entry_.dtype = *dtype;
        where_ = Where::kEntry;
        return true;
      }
      default:
        return scalar("a string");
    }
  }

  bool number_unsigned(uint64_t value) override {
    if (in_array_) {
      if (where_ == Where::kShape) {
        entry_.shape.push_back(value);
      } else if (++num_offsets_ <= 2) {
        (num_offsets_ == 1 ? entry_.begin : entry_.end) = value;
      }
      return true;
    }
    return scalar("a number");
  }

  bool number_integer(int64_t) override { return scalar("a negative number"); }
  bool number_float(double, const std::string& text) override {
    return scalar(concat("the number ", text, ", which is not a plain 64-bit integer"));
  }
  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool binary(nlohmann::json::binary_t&) override { return scalar("binary data"); }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // nlohmann puts its own name and a line and column before what it has to say.
    const std::string_view text = error.what();
    const size_t detail = text.find("syntax error");
    throw Error(ErrorKind::kFormat,
                concat("the header is not valid JSON: ", detail == std::string_view::npos ? text : text.substr(detail)))
        .at_offset(kHeaderLengthBytes + (position > 0 ? position - 1 : 0));
  }

 private:
  // What the next event belongs to.
  enum class Where { kStart, kTop, kTopValue, kMetadata, kMetadataValue, kEntry, kDType, kShape, kOffsets, kUnknown };

  enum Field : unsigned { kHasDType = 1, kHasShape = 2, kHasOffsets = 4 };

  Error fault(const std::string& cause) const {
    return Error(ErrorKind::kFormat, cause).at_offset(kHeaderLengthBytes + static_cast<uint64_t>(furthest_ - begin_));
  }
  Error entry_fault(const std::string& cause) const { return fault(cause).in_tensor(name_); }

  void begin_entry() {
    entry_ = TensorEntry{};
    fields_ = 0;
    num_offsets_ = 0;
    where_ = Where::kEntry;
  }

  void begin_field(const std::string& text) {
    if (text == "dtype") {
      open_field(kHasDType, Where::kDType, text);
    } else if (text == "shape") {
      open_field(kHasShape, Where::kShape, text);
    } else if (text == "data_offsets") {
      open_field(kHasOffsets, Where::kOffsets, text);
    } else {
      where_ = Where::kUnknown;
      depth_ = 0;
    }
  }

  void open_field(Field field, Where where, const std::string& text) {
    if (fields_ & field) {
      throw entry_fault(concat("its ", text, " stands twice"));
    }
    fields_ |= field;
    where_ = where;
  }

  void end_entry() {
    if (fields_ != (kHasDType | kHasShape | kHasOffsets)) {
      throw entry_fault(concat("its entry has no ", !(fields_ & kHasDType)   ? "dtype"
                                                    : !(fields_ & kHasShape) ? "shape"
                                                                             : "data_offsets"));
    }
    entry_.name = std::move(name_);
    header_.tensors.push_back(std::move(entry_));
  }

  bool end_nested() {
    if (--depth_ == 0) {
      where_ = Where::kEntry;
    }
    return true;
  }

  // A value that is neither an object nor an array: fine in an unknown field only.
  bool scalar(const std::string& what) {
    if (where_ != Where::kUnknown) {
      return reject(what);
    }
    if (depth_ == 0) {
      where_ = Where::kEntry;
    }
    return true;
  }

  bool reject(const std::string& found) {
    switch (where_) {
      case Where::kStart:
        throw fault(concat("the header must be a JSON object, not ", found));
      case Where::kTopValue:
        if (name_ == kMetadataKey) {
          throw fault(concat(kMetadataKey, " must be an object of strings, not ", found));
        }
        throw entry_fault(concat("its entry must be an object, not ", found));
      case Where::kMetadataValue:
        throw fault(concat("the value of \"", metadata_key_, "\" in ", kMetadataKey, " must be a string, not ", found));
      case Where::kDType:
        throw entry_fault(concat("dtype must be a string, not ", found));
      case Where::kShape:
        throw entry_fault(concat("shape must be an array of non-negative integers, not ", in_array_ ? "of " : "", found));
      case Where::kOffsets:
        throw entry_fault(
            concat("data_offsets must be an array of 2 non-negative integers, not ", in_array_ ? "of " : "", found));
      default:
        throw fault(concat("unexpected ", found));
    }
  }

  const char* begin_;
  const char* furthest_;
  SafetensorsHeader header_;
  std::unordered_set<std::string> names_;

  Where where_ = Where::kStart;
  std::string name_;
  std::string metadata_key_;
  TensorEntry entry_;
  unsigned fields_ = 0;
  bool in_array_ = false;
  size_t num_offsets_ = 0;
  uint64_t depth_ = 0;  // of arrays and objects inside an unknown field
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
  // The parser would skip a byte order mark, which JSON does not have.
  const size_t first = json.find_first_not_of(" \t\n\r");
  if (first != std::string_view::npos && json[first] != '{') {
    throw Error(ErrorKind::kFormat, "not a safetensors file: its header does not begin with '{'")
        .at_offset(kHeaderLengthBytes + first);
  }
  // And it would take a NUL, which JSON has nowhere, for the end, whatever follows.
  const size_t nul = json.find('\0');
  if (nul != std::string_view::npos) {
    throw Error(ErrorKind::kFormat, "the header is not valid JSON: it contains a NUL byte").at_offset(kHeaderLengthBytes + nul);
  }
  HeaderReader reader(json);
  nlohmann::json::sax_parse(TrackingIterator(json.data(), reader.furthest()),
                            TrackingIterator(json.data() + json.size(), reader.furthest()), &reader);
  return reader.take();
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
      json += (i > 0 ? "," : "") + std::to_string(tensor.shape[i]);
    }
    json += "],\"data_offsets\":[" + std::to_string(tensor.begin) + "," + std::to_string(tensor.end) + "]}";
  }
  return json + "}";
}

}  // namespace veturbo::format
