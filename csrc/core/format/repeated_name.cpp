#include "format/repeated_name.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

// A hash table in two arrays: the first entry of each bucket, and to each entry the next of its bucket.
//
// The hash is a polynomial over the integers modulo the prime 2^61 - 1, whose coefficients are the name's length and its bytes,
// at a point that is drawn once a process. Two names are two polynomials, which have the same value at no more points than their
// degree: whoever does not know the point cannot choose names that fall into one bucket.
namespace veturbo::format {

namespace {

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
constexpr size_t kWordBytes = 7;  // a coefficient is to be less than the prime
constexpr uint64_t kWordMask = (uint64_t{1} << (8 * kWordBytes)) - 1;

uint64_t secret_point() {
  static const uint64_t kPoint = [] {
    std::random_device random;
    return std::uniform_int_distribution<uint64_t>(1, kPrime - 1)(random);
  }();
  return kPoint;
}

uint64_t hash(std::string_view name, uint64_t point) {
  const auto push = [point](uint64_t value, uint64_t coefficient) {
    __extension__ using Product = unsigned __int128;
    const Product sum = static_cast<Product>(value) * point + coefficient;
    const uint64_t folded = static_cast<uint64_t>(sum & kPrime) + static_cast<uint64_t>(sum >> 61);
    return folded >= kPrime ? folded - kPrime : folded;
  };
  uint64_t value = name.size();
  while (name.size() >= sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, name.data(), sizeof(word));
    value = push(value, word & kWordMask);
    name.remove_prefix(kWordBytes);
  }
  uint64_t rest = 0;
  for (const char c : name) {
    rest = rest << 8 | static_cast<uint8_t>(c);
  }
  // Once more multiplied: in the lowest bits alone, which choose the bucket, the last bytes would stand as they are.
  return push(push(value, rest), 0);
}

}  // namespace

std::optional<size_t> find_repeated_name(std::span<const TensorEntry> tensors) {
  constexpr uint32_t kNone = UINT32_MAX;
  const uint64_t point = secret_point();
  std::vector<uint32_t> first(std::bit_ceil(tensors.size() + 1), kNone);
  std::vector<uint32_t> next(tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) {
    uint32_t& bucket = first[hash(tensors[i].name, point) & (first.size() - 1)];
    for (uint32_t other = bucket; other != kNone; other = next[other]) {
      if (tensors[other].name == tensors[i].name) {
        return i;
      }
    }
    next[i] = bucket;
    bucket = i;
  }
  return std::nullopt;
}

}  // namespace veturbo::format
