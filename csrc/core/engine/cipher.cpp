#include "engine/cipher.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "format/cipher_header.h"
#include "format/container.h"
#include "keys/find_key.h"
#include "storage/encrypted_file.h"

namespace veturbo::engine {

namespace {

constexpr const char* kGivenKeySource = "the key argument";

bool switched_on(const char* name) {
  return environment_variable(name) == "1";
}

Cipher from_key(crypto::DataKey key, std::string source) {
  Cipher cipher;
  cipher.key = std::move(key);
  cipher.source = std::move(source);
  cipher.keystream = crypto::make_keystream(cipher.key);
  return cipher;
}

void check_fits(const crypto::DataKey& key, const std::optional<format::CipherHeader>& header, std::string_view source) {
  if (header && key.key.size() != format::cipher_key_bytes(header->mode)) {
    throw Error(ErrorKind::kWrongKey, concat("wrong key: the file is encrypted by ", format::cipher_mode_name(header->mode),
                                             ", the key from ", source, " has ", 8 * key.key.size(), " bits"));
  }
}

crypto::DataKey use_given(GivenKey given, const std::optional<format::CipherHeader>& header) {
  if (!given.key) {
    throw Error(ErrorKind::kInvalidArgument, "iv is given without key");
  }
  if (!given.iv) {
    if (!header) {
      throw Error(ErrorKind::kInvalidArgument, "key is given without iv, and there is no cipher header that has one");
    }
    given.iv = Secret(header->iv);
  }
  return crypto::make_data_key(std::move(*given.key), given.iv->bytes(), "key", "iv");
}

// The given key, or that of whoever has one.
Cipher search(const std::string& uri, GivenKey given, const std::optional<format::CipherHeader>& header,
              const std::stop_token& stop) {
  if (given.key || given.iv) {
    return from_key(use_given(std::move(given), header), kGivenKeySource);
  }
  keys::FoundKey found = keys::find_key({.path = storage::absolute_path(uri), .header = header}, stop);
  return from_key(std::move(found.key), std::move(found.source));
}

void check_decrypts_to_model(storage::ReadableFile& file, std::string_view source) {
  std::vector<std::byte> first(std::min<uint64_t>(file.size(), format::kContainerMagicBytes));
  file.read_at(0, first);
  if (format::detect_container(first, file.size()) == format::Container::kUnknown) {
    throw Error(ErrorKind::kWrongKey, concat("wrong key, or not a model file: decrypted with the key from ", source,
                                             " it is neither safetensors nor a file of torch.save"));
  }
}

// Two files of one key and IV give away the XOR of their contents. Remembers, by a digest, what key wrote which file, and gives
// the warning that this file's key deserves: once a key.
std::string warning_of_reuse(const crypto::DataKey& key, const std::string& uri, bool exists) {
  using Digest = std::array<unsigned char, 32>;
  struct Use {
    std::string uri;
    bool warned;
  };
  static std::mutex mutex;
  static std::map<Digest, Use> uses;

  Secret text(key.key.size() + key.iv.size());
  std::copy(key.iv.begin(), key.iv.end(), std::copy(key.key.bytes().begin(), key.key.bytes().end(), text.bytes().begin()));
  Digest digest = {};
  EVP_Digest(text.bytes().data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr);

  std::lock_guard lock(mutex);
  const auto [use, first] = uses.try_emplace(digest, Use{uri, false});
  const bool reused = exists || !first;
  if (!reused || std::exchange(use->second.warned, true)) {
    return "";
  }
  return concat("the key and IV that encrypt this file ",
                exists ? "may have encrypted the one that it replaces" : concat("have encrypted ", use->second.uri),
                ": who has both can read them. Save with VETURBOIO_CIPHER_HEADER=1, which draws a fresh key for each file");
}

bool exists(const std::string& uri) {
  try {
    storage::open_for_read(uri, {.direct_io = storage::DirectIo::kNever});
    return true;
  } catch (const Error&) {
    return false;  // the save itself will tell of any other reason
  }
}

}  // namespace

std::optional<format::CipherHeader> read_cipher_header(storage::ReadableFile& file) {
  std::vector<std::byte> bytes(std::min<uint64_t>(file.size(), format::kCipherMagicBytes));
  file.read_at(0, bytes);
  if (!format::has_cipher_magic(bytes)) {
    return std::nullopt;
  }
  bytes.resize(std::min(file.size(), format::kCipherHeaderBytes));
  file.read_at(0, bytes);
  try {
    return format::parse_cipher_header(bytes);
  } catch (Error& error) {
    throw error.in_file(file.uri());
  }
}

bool wants_cipher(std::optional<bool> use_cipher, const GivenKey& given) {
  const bool has_key = given.key.has_value() || given.iv.has_value();
  if (use_cipher == false && has_key) {
    throw Error(ErrorKind::kInvalidArgument, "a key is given, but use_cipher is False");
  }
  return use_cipher.value_or(has_key || switched_on("VETURBOIO_USE_CIPHER"));
}

Cipher find_cipher(const std::string& uri, GivenKey given, const std::stop_token& stop) {
  try {
    std::unique_ptr<storage::ReadableFile> file = storage::open_for_read(uri, {.direct_io = storage::DirectIo::kNever});
    std::optional<format::CipherHeader> header = read_cipher_header(*file);
    const uint64_t begin = header ? format::kCipherHeaderBytes : 0;
    Cipher cipher = search(uri, std::move(given), header, stop);
    cipher.begin = begin;
    check_fits(cipher.key, header, cipher.source);
    storage::DecryptedFile plain(std::move(file), begin, cipher.keystream);
    check_decrypts_to_model(plain, cipher.source);
    return cipher;
  } catch (Error& error) {
    throw error.in_file(uri);
  }
}

Cipher make_cipher(const std::string& uri, GivenKey given, const std::stop_token& stop) {
  try {
    if (!given.key && !given.iv && switched_on("VETURBOIO_CIPHER_HEADER")) {
      const std::string_view mode = environment_variable("VETURBOIO_CIPHER_MODE");
      keys::WrappedKey fresh =
          keys::make_wrapped_key(mode.empty() ? format::CipherMode::kCtr128 : format::parse_cipher_mode(mode), stop);
      Cipher cipher = from_key(std::move(fresh.key), "the KMS");
      cipher.header = format::serialize_cipher_header(fresh.header);
      return cipher;
    }
    Cipher cipher = search(uri, std::move(given), std::nullopt, stop);
    cipher.warning = warning_of_reuse(cipher.key, uri, exists(uri));
    return cipher;
  } catch (Error& error) {
    throw error.in_file(uri);
  }
}

std::unique_ptr<storage::ReadableFile> open_for_read(const std::string& uri, const storage::ReadOptions& options,
                                                     const Cipher* cipher) {
  std::unique_ptr<storage::ReadableFile> file = storage::open_for_read(uri, options);
  if (cipher == nullptr) {
    return file;
  }
  if (file->size() < cipher->begin) {
    throw Error(ErrorKind::kFormat,
                concat("damaged cipher header: the file ends after ", file->size(), " of its ", cipher->begin, " bytes"))
        .in_file(uri);
  }
  return std::make_unique<storage::DecryptedFile>(std::move(file), cipher->begin, cipher->keystream);
}

std::unique_ptr<storage::WritableFile> open_for_write(const std::string& uri, uint64_t size, const Cipher* cipher) {
  if (cipher == nullptr) {
    return storage::open_for_write(uri, size);
  }
  // A size of 0 says that it is not known.
  const uint64_t whole = size == 0 ? 0 : cipher->header.size() + size;
  return std::make_unique<storage::EncryptedFile>(storage::open_for_write(uri, whole), cipher->header, cipher->keystream,
                                                  cipher->warning);
}

}  // namespace veturbo::engine
