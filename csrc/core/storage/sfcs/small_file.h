#pragma once

#include <optional>
#include <string>

#include "base/secret.h"

namespace veturbo::storage::sfcs {

// All of a file, which may be secret; nothing where there is none. Throws Error(kIo) for one that cannot be read.
std::optional<Secret> read_if_there(const std::string& path);

}  // namespace veturbo::storage::sfcs
