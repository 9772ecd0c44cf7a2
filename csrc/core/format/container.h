#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace veturbo::format {

enum class Container {
  kSafetensors,
  kTorchZip,     // torch.save since 1.6
  kTorchLegacy,  // torch.save before: a pickle, or in its first versions a tar archive
  kUnknown,
};

// How many first bytes of a file detect_container wants to see.
constexpr size_t kContainerMagicBytes = 512;

// Tells by the first bytes alone. kUnknown is often a damaged safetensors file, whose parser then says what is wrong with it.
Container detect_container(std::span<const std::byte> first_bytes, uint64_t file_size);

}  // namespace veturbo::format
