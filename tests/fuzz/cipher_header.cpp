#include "format/cipher_header.h"

#include "base/base64.h"
#include "require.h"
#include "targets.h"

namespace veturbo::fuzz {

namespace {

std::optional<format::CipherHeader> parsed(std::string_view bytes) {
  return unless_refused([&] { return format::parse_cipher_header(std::as_bytes(std::span(bytes))); });
}

}  // namespace

void cipher_header(std::string_view input) {
  require(!parsed(input.substr(0, format::kCipherHeaderBytes - 1)), "a part of a header is taken for all of it");
  std::string bytes = "Byte3ncryptM0del";
  bytes += input;
  bytes.resize(format::kCipherHeaderBytes, '\0');
  const std::optional<format::CipherHeader> header = parsed(bytes);
  if (!header) {
    return;
  }
  require(base64_decode(header->wrapped_key).has_value(), "a wrapped key is not base64");
  // There may be no room for the names of fields that were left out.
  const auto written = unless_refused([&] { return format::serialize_cipher_header(*header); });
  if (written) {
    require(written->size() == format::kCipherHeaderBytes, "a header is written with another length");
    const std::optional<format::CipherHeader> again = parsed(*written);
    require(again && again->mode == header->mode && again->iv == header->iv && again->wrapped_key == header->wrapped_key &&
                again->file_timestamp == header->file_timestamp,
            "what is written is read as another header");
  }
}

}  // namespace veturbo::fuzz
