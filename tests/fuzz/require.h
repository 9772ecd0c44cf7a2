#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace veturbo::fuzz {

inline void require(bool holds, const std::string& what) {
  if (!holds) {
    throw std::logic_error(what);
  }
}

inline constexpr size_t kMostOfText = 8192;

// Whether a text can be shown: UTF-8, by the parser of others, without control characters, and not too long to be read.
inline void require_readable(const std::string& text, size_t most = kMostOfText) {
  try {
    require(nlohmann::json(text).dump().size() < most, "a text is too long to be read");
  } catch (const nlohmann::json::type_error&) {
    require(false, "a text is not UTF-8: " + text);
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool is_c1 = byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    require(byte >= 0x20 && byte != 0x7F && !is_c1, "a text has a control character: " + text);
  }
}

// What `body` returns; nothing where it throws an Error, which must be one that can be shown, and lie within so many bytes.
template <typename Body>
auto unless_refused(Body&& body, uint64_t most_offset = std::numeric_limits<uint64_t>::max())
    -> std::optional<decltype(std::forward<Body>(body)())> {
  try {
    return std::forward<Body>(body)();
  } catch (const Error& error) {
    require(!error.cause().empty(), "an error says nothing");
    require_readable(error.message(), kMostOfText + 5 * error.file().size());  // which it names whole, a byte as \\x80
    require_readable(error.cause());
    require(error.offset().value_or(0) <= most_offset, "an error's offset lies behind the file: " + error.message());
    return std::nullopt;
  }
}

}  // namespace veturbo::fuzz
