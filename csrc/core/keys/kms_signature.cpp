#include "keys/kms_signature.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <new>
#include <span>

#include "base/concat.h"

namespace veturbo::keys {

namespace {

constexpr size_t kDigestBytes = 32;
constexpr std::string_view kAlgorithm = "HMAC-SHA256";
constexpr std::string_view kSignedHeaders = "content-type;host;x-content-sha256;x-date";

std::string hex(std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<size_t>(byte >> 4)];
    text += kDigits[std::to_integer<size_t>(byte & std::byte{15})];
  }
  return text;
}

unsigned char* as_uchar(Secret& secret) {
  return reinterpret_cast<unsigned char*>(secret.bytes().data());
}

Secret hmac(const Secret& key, std::string_view text) {
  Secret digest(kDigestBytes);
  if (HMAC(EVP_sha256(), key.bytes().data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()),
           text.size(), as_uchar(digest), nullptr) == nullptr) {
    throw std::bad_alloc();  // the only reason there is
  }
  return digest;
}

}  // namespace

std::string sha256_hex(std::string_view text) {
  Secret digest(kDigestBytes);
  if (EVP_Digest(text.data(), text.size(), as_uchar(digest), nullptr, EVP_sha256(), nullptr) != 1) {
    throw std::bad_alloc();
  }
  return hex(digest.bytes());
}

std::string kms_authorization(const KmsSignedParts& parts, const Credentials& credentials) {
  const std::string_view day = parts.date.substr(0, 8);
  const std::string scope = concat(day, "/", parts.region, "/kms/request");
  const std::string body_hash = sha256_hex(parts.body);
  const std::string request =
      concat("POST\n/\n", parts.query, "\ncontent-type:application/json\nhost:", parts.host, "\nx-content-sha256:", body_hash,
             "\nx-date:", parts.date, "\n\n", kSignedHeaders, "\n", body_hash);
  const std::string text = concat(kAlgorithm, "\n", parts.date, "\n", scope, "\n", sha256_hex(request));
  const Secret key = hmac(hmac(hmac(hmac(credentials.secret_key, day), parts.region), "kms"), "request");
  return concat(kAlgorithm, " Credential=", credentials.access_key, "/", scope, ", SignedHeaders=", kSignedHeaders,
                ", Signature=", hex(hmac(key, text).bytes()));
}

}  // namespace veturbo::keys
