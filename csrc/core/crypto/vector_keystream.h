#pragma once

#include <memory>

#include "crypto/keystream.h"

// Vectors of whole AES blocks: one in 128 bits, two in 256, four in 512. Each width is compiled in a file of its own with the
// instructions that it needs, for x86-64 only, and must only be run where its supported() says so.
namespace veturbo::crypto {

bool aesni_supported();
std::unique_ptr<Keystream> make_aesni_keystream(const DataKey& key);

bool vaes256_supported();
std::unique_ptr<Keystream> make_vaes256_keystream(const DataKey& key);

bool vaes512_supported();
std::unique_ptr<Keystream> make_vaes512_keystream(const DataKey& key);

}  // namespace veturbo::crypto
