#include "base/base64.h"

#include <openssl/evp.h>

#include <climits>

namespace veturbo {

namespace {

constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const unsigned char* as_uchar(const void* bytes) {
  return static_cast<const unsigned char*>(bytes);
}

}  // namespace

std::string base64_encode(std::span<const std::byte> bytes) {
  std::string text((bytes.size() + 2) / 3 * 4, '\0');
  if (!bytes.empty()) {
    // Writes a NUL behind the text, where std::string has one.
    EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), as_uchar(bytes.data()), static_cast<int>(bytes.size()));
  }
  return text;
}

std::optional<Secret> base64_decode(std::string_view text) {
  if (text.size() % 4 != 0 || text.size() > INT_MAX) {
    return std::nullopt;
  }
  if (text.empty()) {
    return Secret();
  }
  const size_t digits = text.find_last_not_of('=') + 1;  // npos + 1 is 0
  const size_t padding = text.size() - digits;
  // OpenSSL takes white space and padding in the middle, too.
  if (padding > 2 || text.substr(0, digits).find_first_not_of(kDigits) != std::string_view::npos) {
    return std::nullopt;
  }
  Secret bytes(text.size() / 4 * 3);
  auto* const out = reinterpret_cast<unsigned char*>(bytes.bytes().data());
  if (EVP_DecodeBlock(out, as_uchar(text.data()), static_cast<int>(text.size())) < 0) {
    return std::nullopt;
  }
  bytes.shrink(bytes.size() - padding);
  // Bits that no byte holds must be zero: one value has one text.
  const size_t last = kDigits.find(text[digits - 1]);
  const size_t unused = padding == 2 ? 15 : padding == 1 ? 3 : 0;
  return (last & unused) == 0 ? std::optional(std::move(bytes)) : std::nullopt;
}

}  // namespace veturbo
