#pragma once

#include <chrono>
#include <optional>
#include <string_view>

namespace veturbo {

// A time as ISO 8601 writes it in full: 2024-05-06T07:08:09Z, with an offset as +08:00 in place of the Z, and perhaps with a
// fraction of a second, which is dropped. Nothing when the text is no such time; one without an offset could be any.
std::optional<std::chrono::sys_seconds> parse_iso_time(std::string_view text);

}  // namespace veturbo
