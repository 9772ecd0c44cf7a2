#pragma once

#include <memory>

#include "crypto/keystream.h"

namespace veturbo::crypto {

std::unique_ptr<Keystream> make_openssl_keystream(const DataKey& key);

}  // namespace veturbo::crypto
