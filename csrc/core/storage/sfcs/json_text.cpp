#include "storage/sfcs/json_text.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

namespace veturbo::storage::sfcs {

std::optional<std::string> json_text(const nlohmann::json& value) {
  if (value.is_null()) {
    return "";
  }
  if (value.is_string()) {
    return value.get<std::string>();
  }
  return value.is_number_integer() ? std::optional(value.dump()) : std::nullopt;
}

std::optional<std::string> boolean_text(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (lower == "true" || lower == "1" || lower == "yes" || lower == "on") {
    return "true";
  }
  return lower == "false" || lower == "0" || lower == "no" || lower == "off" ? std::optional<std::string>("false") : std::nullopt;
}

}  // namespace veturbo::storage::sfcs
