#pragma once

#include <string>
#include <string_view>

#include "keys/http_client.h"

namespace veturbo::keys {

// Where the KMS is, and which of its keys wraps ours.
struct KmsSettings {
  std::string scheme;  // "https", or "http" for a loopback host
  std::string host;    // HOST or HOST:PORT, as in the header Host
  Proxy proxy = Proxy::kFromEnvironment;
  std::string region;
  std::string keyring_name;
  std::string key_name;

  // VETURBOIO_KMS_HOST, _REGION, _KEYRING_NAME, _KEY_NAME. Throws Error(kNoKey).
  static KmsSettings from_environment();
};

// As in a query: all but letters, digits and -._~ as %XX.
std::string percent_encoded(std::string_view text);

}  // namespace veturbo::keys
