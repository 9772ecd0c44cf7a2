#pragma once

#include <cstdlib>
#include <string_view>

namespace veturbo {

// What the environment says, nothing when it says an empty text or nothing at all: shells leave empty ones behind. To be copied
// before anything else may change the environment.
inline std::string_view environment_variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

}  // namespace veturbo
