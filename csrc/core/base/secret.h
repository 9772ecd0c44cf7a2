#pragma once

#include <openssl/crypto.h>

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/secret_memory.h"

namespace veturbo {

// Bytes that nobody else may see: in memory of their own (secret_memory.h), overwritten when they are no longer needed, never
// copied by accident, without a way to print them.
class Secret {
 public:
  Secret() = default;
  explicit Secret(size_t size) : bytes_(size) {}
  explicit Secret(std::span<const std::byte> bytes) : bytes_(bytes.begin(), bytes.end()) {}
  explicit Secret(std::string_view text) : Secret(std::as_bytes(std::span(text))) {}

  Secret(Secret&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Secret& operator=(Secret&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() = default;

  Secret clone() const { return Secret(bytes()); }
  // Of what is cut off nothing stays.
  void shrink(size_t size) {
    OPENSSL_cleanse(bytes_.data() + size, bytes_.size() - size);
    bytes_.resize(size);
  }

  // Where there is no room for it, all moves to a larger place, and nothing stays in the old one.
  void append(std::string_view text) {
    const auto added = std::as_bytes(std::span(text));
    if (bytes_.capacity() - bytes_.size() < added.size()) {
      Secret larger;
      larger.bytes_.reserve(2 * (bytes_.size() + added.size()));
      larger.bytes_.assign(bytes_.begin(), bytes_.end());
      *this = std::move(larger);
    }
    bytes_.insert(bytes_.end(), added.begin(), added.end());
  }

  std::span<const std::byte> bytes() const { return bytes_; }
  std::span<std::byte> bytes() { return bytes_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()}; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

 private:
  std::vector<std::byte, SecretAllocator<std::byte>> bytes_;
};

}  // namespace veturbo
