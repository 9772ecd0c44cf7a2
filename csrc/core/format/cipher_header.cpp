#include "format/cipher_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/concat.h"
#include "base/error.h"
#include "base/readable.h"

namespace veturbo::format {

namespace {

constexpr std::string_view kMagic = "Byte3ncryptM0del";
static_assert(kMagic.size() == kCipherMagicBytes);

Error bad_header(const std::string& what) {
  return Error(ErrorKind::kFormat, concat("damaged cipher header: ", what));
}

const std::string& text_field(const nlohmann::json& fields, const char* name) {
  const auto found = fields.find(name);
  if (found == fields.end() || !found->is_string()) {
    throw bad_header(concat("\"", name, "\" is not a text"));
  }
  return found->get_ref<const std::string&>();
}

CipherMode mode_field(const nlohmann::json& fields) {
  const std::string& name = text_field(fields, "mode");
  try {
    return parse_cipher_mode(name);
  } catch (const Error& error) {
    throw bad_header(error.cause());
  }
}

crypto::Iv iv_field(const nlohmann::json& fields) {
  const std::optional<Secret> bytes = base64_decode(text_field(fields, "iv"));
  if (!bytes) {
    throw bad_header("\"iv\" is not base64");
  }
  crypto::Iv iv;
  if (bytes->size() != iv.size()) {
    throw bad_header(concat("\"iv\" has ", bytes->size(), " bytes, not ", iv.size()));
  }
  std::copy(bytes->bytes().begin(), bytes->bytes().end(), iv.begin());
  return iv;
}

}  // namespace

std::string_view cipher_mode_name(CipherMode mode) {
  return mode == CipherMode::kCtr128 ? "CTR-128" : "CTR-256";
}

size_t cipher_key_bytes(CipherMode mode) {
  return mode == CipherMode::kCtr128 ? 16 : 32;
}

CipherMode parse_cipher_mode(std::string_view name) {
  for (const CipherMode mode : {CipherMode::kCtr128, CipherMode::kCtr256}) {
    if (name == cipher_mode_name(mode)) {
      return mode;
    }
  }
  constexpr size_t kMostShown = 32;
  throw Error(ErrorKind::kInvalidArgument,
              concat("the cipher mode \"", readable(name, kMostShown), "\" is unknown: it is CTR-128 or CTR-256"));
}

bool has_cipher_magic(std::span<const std::byte> first_bytes) {
  const std::span<const std::byte> magic = std::as_bytes(std::span(kMagic));
  return first_bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), first_bytes.begin());
}

CipherHeader parse_cipher_header(std::span<const std::byte> bytes) {
  if (!has_cipher_magic(bytes)) {
    throw bad_header("it does not begin with Byte3ncryptM0del");
  }
  if (bytes.size() < kCipherHeaderBytes) {
    throw bad_header(concat("the file ends after ", bytes.size(), " of its ", kCipherHeaderBytes, " bytes"));
  }
  std::string_view json(reinterpret_cast<const char*>(bytes.data()), kCipherHeaderBytes);
  json.remove_prefix(kMagic.size());
  const size_t end = json.find('\0');
  if (end == std::string_view::npos) {
    throw bad_header("its JSON has no end");
  }
  json = json.substr(0, end);
  const nlohmann::json fields = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!fields.is_object()) {
    throw bad_header("it holds no JSON object");
  }
  CipherHeader header;
  header.mode = mode_field(fields);
  header.iv = iv_field(fields);
  header.wrapped_key = text_field(fields, "meta_data_key");
  if (!base64_decode(header.wrapped_key)) {
    throw bad_header("\"meta_data_key\" is not base64");
  }
  if (const auto found = fields.find("file_timestamp"); found != fields.end()) {
    // What is above the largest would be read as a time before 1970.
    if (!found->is_number_integer() ||
        (found->is_number_unsigned() && found->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})) {
      throw bad_header("\"file_timestamp\" is not an integer");
    }
    header.file_timestamp = found->get<int64_t>();
  }
  return header;
}

std::string serialize_cipher_header(const CipherHeader& header) {
  const nlohmann::ordered_json fields = {{"mode", cipher_mode_name(header.mode)},
                                         {"iv", base64_encode(header.iv)},
                                         {"meta_data_key", header.wrapped_key},
                                         {"file_timestamp", header.file_timestamp}};
  std::string bytes = concat(kMagic, fields.dump());
  if (bytes.size() >= kCipherHeaderBytes) {
    throw Error(ErrorKind::kInvalidArgument, concat("a wrapped key of ", header.wrapped_key.size(), " bytes does not fit"));
  }
  bytes.resize(kCipherHeaderBytes, '\0');
  return bytes;
}

}  // namespace veturbo::format
