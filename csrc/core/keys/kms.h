#pragma once

#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "base/secret.h"
#include "keys/credentials.h"
#include "keys/json_strings.h"
#include "keys/key_provider.h"
#include "keys/kms_settings.h"
#include "keys/trusted_service.h"

namespace veturbo::keys {

// The key management service: wraps data keys with a key that it never gives away, and unwraps them.
//
// Asked through the trusted service where there is one, which may be the only way out of its container. A failure that may pass
// (no connection, status 429 or 5xx) is tried again a few times, a refusal is not.
class Kms {
 public:
  // `service` is asked for credentials, the environment when it has none; both must outlive this. Throws Error(kNoKey).
  static Kms from_environment(TrustedService& service, const std::stop_token& stop);

  Kms(KmsSettings settings, Credentials credentials, TrustedService& service)
      : settings_(std::move(settings)), credentials_(std::move(credentials)), service_(service) {}

  // Both throw Error(kNoKey), and Error(kCancelled) soon after `stop` was requested.
  std::string wrap(const Secret& data_key, const std::stop_token& stop);
  Secret unwrap(std::string_view wrapped_key, const std::stop_token& stop);

 private:
  // `secret` is what of the body may not be told when it is refused.
  JsonStrings ask(std::string_view action, const Secret& body, const Secret& secret, const std::stop_token& stop);
  HttpResponse send_signed(std::string_view action, const Secret& body, const std::stop_token& stop);

  KmsSettings settings_;
  Credentials credentials_;
  TrustedService& service_;
};

// Unwraps the key in the file's header.
class KmsProvider final : public KeyProvider {
 public:
  explicit KmsProvider(TrustedService& service) : service_(service) {}

  std::string_view name() const override { return "the KMS"; }
  crypto::DataKey get(const KeyRequest& request, std::stop_token stop) override;

 private:
  TrustedService& service_;
};

}  // namespace veturbo::keys
