#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "format/safetensors.h"

// The JSON of a safetensors header, to and from its entries. What the entries say of each other and of the file (order, holes,
// sizes) is not looked at here.
namespace veturbo::format {

// Throws Error(kFormat) with the offset in the file. `data_offset` of the result is not set.
SafetensorsHeader parse_header_json(std::string_view json);

// Without padding. Throws Error(kInvalidArgument) for a text that is not UTF-8.
std::string serialize_header_json(std::span<const TensorEntry> tensors, const std::optional<Metadata>& metadata);

}  // namespace veturbo::format
