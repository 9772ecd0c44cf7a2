#pragma once

#include <cstddef>
#include <cstdint>

#include "crypto/aes_block.h"
#include "crypto/data_key.h"

namespace veturbo::crypto {

// A counter block as the number that it is, modulo 2^128.
struct Counter {
  uint64_t high;
  uint64_t low;
};

VETURBO_HOST_DEVICE constexpr Counter operator+(Counter counter, uint64_t blocks) {
  const uint64_t low = counter.low + blocks;
  return {counter.high + (low < blocks ? 1U : 0U), low};
}

VETURBO_HOST_DEVICE constexpr Counter operator-(Counter counter, uint64_t blocks) {
  return {counter.high - (counter.low < blocks ? 1U : 0U), counter.low - blocks};
}

constexpr Counter counter_of(const Iv& block) {
  Counter counter{0, 0};
  for (size_t i = 0; i < kBlockBytes / 2; ++i) {
    counter.high = (counter.high << 8U) | static_cast<uint64_t>(block[i]);
    counter.low = (counter.low << 8U) | static_cast<uint64_t>(block[i + kBlockBytes / 2]);
  }
  return counter;
}

constexpr Iv iv_of(Counter counter) {
  Iv block{};
  for (size_t i = 0; i < kBlockBytes / 2; ++i) {
    const size_t shift = 8 * (kBlockBytes / 2 - 1 - i);
    block[i] = static_cast<std::byte>(counter.high >> shift);
    block[i + kBlockBytes / 2] = static_cast<std::byte>(counter.low >> shift);
  }
  return block;
}

}  // namespace veturbo::crypto
