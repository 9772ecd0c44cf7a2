#pragma once

#include <string>

#include "base/secret.h"

namespace veturbo::keys {

// What a cloud service knows its caller by. Lent ones have a session token.
struct Credentials {
  std::string access_key;
  Secret secret_key;
  Secret session_token;  // empty if there is none
};

}  // namespace veturbo::keys
