#include <algorithm>
#include <vector>

#include "engine/plan.h"
#include "format/container.h"
#include "format/header_json.h"
#include "format/safetensors.h"
#include "require.h"
#include "targets.h"

namespace veturbo::fuzz {

namespace {

using format::SafetensorsHeader;
using format::TensorEntry;

bool are_equal(const std::vector<TensorEntry>& all, const std::vector<TensorEntry>& others) {
  return std::ranges::equal(all, others, [](const TensorEntry& a, const TensorEntry& b) {
    return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin && a.end == b.end;
  });
}

void require_same_from_its_bytes(const std::vector<TensorEntry>& tensors, const std::optional<format::Metadata>& metadata) {
  const std::string bytes = format::serialize_header(tensors, metadata);
  uint64_t size = 0;
  if (__builtin_add_overflow(bytes.size(), tensors.empty() ? 0 : tensors.back().end, &size)) {
    return;
  }
  const uint64_t length = format::parse_header_length(std::as_bytes(std::span(bytes)), size);
  require(length == bytes.size() - format::kHeaderLengthBytes && length % 8 == 0, "a header is written with another length");
  const SafetensorsHeader again = format::parse_header(std::string_view(bytes).substr(format::kHeaderLengthBytes), size);
  require(are_equal(again.tensors, tensors), "what is written is read as other tensors");
  require(again.metadata == metadata, "what is written is read as other metadata");
}

// The data is what the entries say, without holes, and so is what would be read of it.
void require_data(const SafetensorsHeader& header, uint64_t file_size) {
  uint64_t end = 0;
  std::vector<engine::FileRange> ranges;
  for (const TensorEntry& tensor : header.tensors) {
    require(tensor.begin == end && tensor.end >= tensor.begin, "the data has a hole or an overlap");
    require(format::tensor_bytes(tensor.dtype, tensor.shape) == tensor.num_bytes(), "a tensor has not the bytes of its shape");
    ranges.push_back({header.data_offset + tensor.begin, tensor.num_bytes()});
    end = tensor.end;
  }
  require(header.data_offset <= file_size && end == file_size - header.data_offset, "the data does not end where the file does");
  constexpr uint64_t kMostPlanned = uint64_t{1} << 20U;
  if (end > kMostPlanned) {
    return;
  }
  const engine::Plan plan = engine::make_plan(ranges, {.chunk_size = 4096});
  require(plan.bytes == end, "not all of the data is read");
  for (const engine::Segment& segment : plan.segments) {
    require(segment.file_offset >= header.data_offset && segment.file_offset + segment.size <= file_size &&
                segment.target_offset + segment.size <= ranges.at(segment.target).size,
            "what is read lies outside of its tensor");
  }
}

void require_good(const SafetensorsHeader& header, uint64_t file_size) {
  require_data(header, file_size);
  require_same_from_its_bytes(header.tensors, header.metadata);
  std::vector<TensorEntry> written = header.tensors;
  const auto lay_out = [&written] {
    format::lay_out(written);
    return true;
  };
  if (unless_refused(lay_out)) {
    require_same_from_its_bytes(written, header.metadata);
  }
}

// Of `input` as it is.
void read_file(std::string_view input) {
  const auto bytes = std::as_bytes(std::span(input));
  const auto length = unless_refused([&] { return format::parse_header_length(bytes, input.size()); }, input.size());
  if (!length) {
    return;
  }
  require(*length <= format::kMaxHeaderBytes && *length <= input.size() - 8, "a header is longer than its file");
  const auto header = unless_refused([&] { return format::parse_header(input.substr(8, *length), input.size()); }, input.size());
  if (header) {
    require_good(*header, input.size());
    const auto first_bytes = bytes.first(std::min(bytes.size(), format::kContainerMagicBytes));
    require(format::detect_container(first_bytes, input.size()) == format::Container::kSafetensors,
            "a safetensors file is not known for one");
  }
}

// Of `json` in a file of the size that its entries ask for, as large as it may be.
void read_header(std::string_view json) {
  const uint64_t data_offset = format::kHeaderLengthBytes + json.size();
  const auto entries = unless_refused([&] { return format::parse_header_json(json); }, data_offset);
  if (!entries) {
    return;
  }
  uint64_t size = data_offset;
  for (const TensorEntry& tensor : entries->tensors) {
    uint64_t end = 0;
    size = std::max(size, __builtin_add_overflow(data_offset, tensor.end, &end) ? 0 : end);
  }
  if (const auto header = unless_refused([&] { return format::parse_header(json, size); }, size)) {
    require_good(*header, size);
  }
}

}  // namespace

void safetensors_header(std::string_view input) {
  read_file(input);
  read_header(input.substr(std::min(input.size(), format::kHeaderLengthBytes)));
}

}  // namespace veturbo::fuzz
