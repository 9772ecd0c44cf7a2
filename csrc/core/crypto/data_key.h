#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

#include "base/secret.h"

namespace veturbo::crypto {

constexpr size_t kBlockBytes = 16;  // of AES

// The first counter block, big-endian.
using Iv = std::array<std::byte, kBlockBytes>;

// What turns a model into ciphertext and back. Made by make_data_key() only, which checks.
struct DataKey {
  Secret key;  // 16 or 32 bytes
  Iv iv;

  DataKey clone() const { return {key.clone(), iv}; }
};

// Throws Error(kInvalidArgument) for a key or IV of another length; says how long they are, not what they are. `key_name` and
// `iv_name` stand in it for what was checked: "VETURBOIO_KEY".
DataKey make_data_key(Secret key, std::span<const std::byte> iv, std::string_view key_name, std::string_view iv_name);

}  // namespace veturbo::crypto
