#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "crypto/data_key.h"
#include "crypto/keystream.h"
#include "format/cipher_header.h"
#include "storage/open.h"

// How a model file is encrypted: found out before it is opened, since asking for a key may take minutes.
namespace veturbo::engine {

struct Cipher {
  crypto::DataKey key;
  std::shared_ptr<const crypto::Keystream> keystream;
  std::string header;   // of a file that is to be written: its first bytes, or none
  uint64_t begin = 0;   // of a file that is read: where in it the stream begins
  std::string source;   // who had the key: "the environment"
  std::string warning;  // of a file that is to be written: what is wrong with this key, if anything
};

// A key from the program itself, before every other source.
struct GivenKey {
  std::optional<Secret> key;  // 16 or 32 bytes
  std::optional<Secret> iv;   // 16 bytes; a file with a header has its own
};

// Whether a file is to be encrypted, or taken for encrypted: as the caller says; if he does not, when he gives a key or
// VETURBOIO_USE_CIPHER is 1. Throws Error(kInvalidArgument) for a key that is not to be used.
bool wants_cipher(std::optional<bool> use_cipher, const GivenKey& given);

// Throws what keys::find_key() throws, and Error(kWrongKey) when what the file decrypts to is neither safetensors nor a file of
// torch.save.
Cipher find_cipher(const std::string& uri, GivenKey given, const std::stop_token& stop);

// For a file that is to be written. With VETURBOIO_CIPHER_HEADER=1 and no key given: a fresh key, wrapped by the KMS, and a
// header that holds it.
Cipher make_cipher(const std::string& uri, GivenKey given, const std::stop_token& stop);

// The header of an encrypted file, if it has one. Throws Error(kFormat) for a damaged one.
std::optional<format::CipherHeader> read_cipher_header(storage::ReadableFile& file);

// As storage's functions of these names; without a cipher, they are those.
std::unique_ptr<storage::ReadableFile> open_for_read(const std::string& uri, const storage::ReadOptions& options,
                                                     const Cipher* cipher);
std::unique_ptr<storage::WritableFile> open_for_write(const std::string& uri, uint64_t size, const Cipher* cipher);

}  // namespace veturbo::engine
