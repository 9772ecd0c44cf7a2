#pragma once

#include <string>
#include <string_view>

#include "keys/credentials.h"

// How a request to the KMS is signed. Nothing here reads the clock or the environment.
namespace veturbo::keys {

// Of a POST to "/" whose body is JSON.
struct KmsSignedParts {
  std::string_view query;  // encoded and sorted, as it stands in the url
  std::string_view host;   // as it stands in the header
  std::string_view body;
  std::string_view date;  // YYYYMMDDTHHMMSSZ
  std::string_view region;
};

// 64 digits, in lower case.
std::string sha256_hex(std::string_view text);

// The value of the header Authorization.
std::string kms_authorization(const KmsSignedParts& parts, const Credentials& credentials);

}  // namespace veturbo::keys
