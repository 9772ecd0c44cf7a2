#pragma once

#include <cstddef>
#include <string>
#include <string_view>

// Texts that others have chosen, on their way to where people read them.
namespace veturbo {

// What is not UTF-8 as \x80.
std::string valid_utf8(std::string_view text);

// The same with control characters, which end lines of a log and give orders to a terminal, as \x1b; and of a text that has more
// than `most` bytes the first characters only, and "...".
std::string readable(std::string_view text, size_t most = std::string_view::npos);

}  // namespace veturbo
