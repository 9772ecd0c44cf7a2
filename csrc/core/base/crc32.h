#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

// The checksum of zip archives.
namespace veturbo {

// Of bytes that follow those with the checksum `before`.
uint32_t crc32(std::span<const std::byte> bytes, uint32_t before = 0);

// The same for any processor, at a fraction of the speed.
uint32_t portable_crc32(std::span<const std::byte> bytes, uint32_t before = 0);

// Of two parts, one after the other, given theirs.
uint32_t combined_crc32(uint32_t first, uint32_t second, uint64_t second_size);

}  // namespace veturbo
