#pragma once

#include <chrono>
#include <string>

#include "base/secret.h"

namespace veturbo::keys {

// What a cloud service knows its caller by. Lent ones have a session token.
struct Credentials {
  std::string access_key;
  Secret secret_key;
  Secret session_token;  // empty if there is none
};

// What SFCS is entered with, for some time.
struct SfcsCredentials {
  Credentials credentials;
  std::string name_node;
  std::chrono::seconds lifetime;  // from the answer on; at least one
};

}  // namespace veturbo::keys
