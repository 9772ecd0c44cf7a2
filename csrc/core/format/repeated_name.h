#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "format/safetensors.h"

namespace veturbo::format {

// The index of the first entry whose name an earlier one has, too. Takes time proportional to the names' bytes, also where
// whoever made the file chose them so that it should take longer.
std::optional<size_t> find_repeated_name(std::span<const TensorEntry> tensors);

}  // namespace veturbo::format
