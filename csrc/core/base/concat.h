#pragma once

#include <sstream>
#include <string>

namespace veturbo {

// Error texts are put together where they are thrown; this keeps that to one line.
template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace veturbo
