#pragma once

#include <openssl/crypto.h>

#include <cstdint>

#include "base/secret.h"
#include "crypto/aes_block.h"

namespace veturbo::crypto {

// A key's round keys, which are as secret as it is: overwritten when they are no longer needed.
class ExpandedKey {
 public:
  // `key` has 16 or 32 bytes.
  explicit ExpandedKey(const Secret& key) : keys_(expand_key(reinterpret_cast<const uint8_t*>(key.bytes().data()), key.size())) {}
  ~ExpandedKey() { OPENSSL_cleanse(&keys_, sizeof(keys_)); }
  ExpandedKey(const ExpandedKey&) = delete;
  ExpandedKey& operator=(const ExpandedKey&) = delete;

  const RoundKeys& get() const { return keys_; }

 private:
  RoundKeys keys_;
};

}  // namespace veturbo::crypto
