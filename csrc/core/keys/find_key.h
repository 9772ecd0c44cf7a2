#pragma once

#include <span>
#include <stop_token>
#include <string>

#include "crypto/data_key.h"
#include "format/cipher_header.h"
#include "keys/key_provider.h"

namespace veturbo::keys {

struct FoundKey {
  crypto::DataKey key;
  std::string source;  // KeyProvider::name() of who had it
};

// Asks, in this order: the KMS for a file that has a header, the trusted service, the environment. Throws one Error(kNoKey) that
// lists them all, each with its reason; Error(kCancelled) soon after `stop` was requested.
FoundKey find_key(const KeyRequest& request, const std::stop_token& stop);

// The same with other providers.
FoundKey first_key(std::span<KeyProvider* const> providers, const KeyRequest& request, const std::stop_token& stop);

// A fresh random key and IV for a file that is to be written with a header, and that header, in which the KMS has wrapped the
// key. Throws Error(kNoKey) and Error(kCancelled), as find_key().
struct WrappedKey {
  crypto::DataKey key;
  format::CipherHeader header;
};
WrappedKey make_wrapped_key(format::CipherMode mode, const std::stop_token& stop);

}  // namespace veturbo::keys
