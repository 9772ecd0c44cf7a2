#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "crypto/data_key.h"

// The header that an encrypted file may have, which says how its key is to be had:
//
//   Byte3ncryptM0del{"mode": "CTR-128", "iv": BASE64, "meta_data_key": BASE64, "file_timestamp": SECONDS}
//
// and zero bytes up to kCipherHeaderBytes. Behind it stands the encrypted file, whose first byte has offset 0 in the keystream.
namespace veturbo::format {

constexpr uint64_t kCipherHeaderBytes = 262144;
constexpr size_t kCipherMagicBytes = 16;

enum class CipherMode { kCtr128, kCtr256 };

struct CipherHeader {
  CipherMode mode = CipherMode::kCtr128;
  crypto::Iv iv = {};
  std::string wrapped_key;     // what the KMS made of the data key: base64, to be sent back as it is
  int64_t file_timestamp = 0;  // seconds since 1970
};

// "CTR-128", "CTR-256".
std::string_view cipher_mode_name(CipherMode mode);
// Of the data key.
size_t cipher_key_bytes(CipherMode mode);
// Throws Error(kInvalidArgument) for any other name.
CipherMode parse_cipher_mode(std::string_view name);

// Whether a file that begins with these bytes has the header.
bool has_cipher_magic(std::span<const std::byte> first_bytes);

// `bytes` are the file's first kCipherHeaderBytes, or all of a shorter file. Throws Error(kFormat).
CipherHeader parse_cipher_header(std::span<const std::byte> bytes);

// All kCipherHeaderBytes.
std::string serialize_cipher_header(const CipherHeader& header);

}  // namespace veturbo::format
