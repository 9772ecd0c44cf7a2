#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace veturbo {

// How much memory the control groups of this process let it use, in bytes; nothing where they set no limit. `root` is where the
// system's files are.
std::optional<uint64_t> memory_limit(const std::filesystem::path& root = "/");

}  // namespace veturbo
