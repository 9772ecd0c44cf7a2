#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

// Values of a configuration, as people write them into JSON files and into the environment.
namespace veturbo::storage::sfcs {

// A string, a whole number's digits, since identifiers are often written as one, or empty for null. Nothing for all else.
std::optional<std::string> json_text(const nlohmann::json& value);

// "true" or "false" for these, for 1 and 0, yes and no, on and off, in any case. Nothing for all else.
std::optional<std::string> boolean_text(std::string_view text);

}  // namespace veturbo::storage::sfcs
