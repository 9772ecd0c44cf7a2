#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/secret.h"

// Base64 as RFC 4648 has it in section 4: with padding, without line breaks.
namespace veturbo {

std::string base64_encode(std::span<const std::byte> bytes);

// Nothing when the text is not base64. What it stands for may be a key, so it wipes itself.
std::optional<Secret> base64_decode(std::string_view text);

}  // namespace veturbo
