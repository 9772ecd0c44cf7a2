#pragma once

#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/data_key.h"
#include "format/cipher_header.h"

// Who knows the key of an encrypted file.
namespace veturbo::keys {

// What a provider may want to know of the file.
struct KeyRequest {
  std::string path;  // where the file is, or will be: absolute if it is local
  std::optional<format::CipherHeader> header;
};

class KeyProvider {
 public:
  virtual ~KeyProvider() = default;

  // For the error that lists who was asked: "the trusted service".
  virtual std::string_view name() const = 0;
  // The key, or an Error that says why there is none; never with a secret in it. Throws Error(kCancelled) soon after `stop` was
  // requested.
  virtual crypto::DataKey get(const KeyRequest& request, std::stop_token stop) = 0;
};

}  // namespace veturbo::keys
