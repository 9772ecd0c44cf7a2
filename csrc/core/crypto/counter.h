#pragma once

#include <cstddef>
#include <cstdint>

#include "crypto/data_key.h"

namespace veturbo::crypto {

// A counter block as the number that it is.
struct Counter {
  uint64_t high = 0;
  uint64_t low = 0;

  constexpr explicit Counter(const Iv& block) {
    for (size_t i = 0; i < kBlockBytes / 2; ++i) {
      high = (high << 8U) | static_cast<uint64_t>(block[i]);
      low = (low << 8U) | static_cast<uint64_t>(block[i + kBlockBytes / 2]);
    }
  }

  constexpr Counter plus(uint64_t blocks) const {
    Counter sum = *this;
    sum.low += blocks;
    sum.high += sum.low < low ? 1 : 0;
    return sum;
  }

  constexpr Iv block() const {
    Iv block{};
    for (size_t i = 0; i < kBlockBytes / 2; ++i) {
      const size_t shift = 8 * (kBlockBytes / 2 - 1 - i);
      block[i] = static_cast<std::byte>(high >> shift);
      block[i + kBlockBytes / 2] = static_cast<std::byte>(low >> shift);
    }
    return block;
  }
};

}  // namespace veturbo::crypto
