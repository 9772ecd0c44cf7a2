#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace veturbo::storage::sfcs {

// The network of the first of these NICs, with commas between them, that has one: 10.0.0.0/24. Throws Error(kInvalidArgument)
// when none has.
std::string network_segment(std::string_view nics);

// An IPv4 address and its mask, both in the host's byte order, as such a text.
std::string network_text(uint32_t address, uint32_t mask);

}  // namespace veturbo::storage::sfcs
