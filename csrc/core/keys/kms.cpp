#include "keys/kms.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <initializer_list>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "keys/answers.h"
#include "keys/kms_signature.h"
#include "keys/pause.h"

namespace veturbo::keys {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPauses[] = {milliseconds(250), milliseconds(500), milliseconds(1000), milliseconds(2000)};

Credentials credentials_from_environment() {
  const std::string_view access_key = environment_variable("VETURBOIO_KMS_ACCESS_KEY");
  const std::string_view secret_key = environment_variable("VETURBOIO_KMS_SECRET_KEY");
  if (access_key.empty() || secret_key.empty()) {
    throw Error(ErrorKind::kNoKey, concat("VETURBOIO_KMS_", access_key.empty() ? "ACCESS" : "SECRET", "_KEY is not set"));
  }
  return {.access_key = std::string(access_key),
          .secret_key = Secret(secret_key),
          .session_token = Secret(environment_variable("VETURBOIO_KMS_SESSION_TOKEN"))};
}

Credentials find_credentials(TrustedService& service, const std::stop_token& stop) {
  std::string reason;
  try {
    return service.kms_credentials(stop);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) {
      throw;
    }
    reason = error.cause();
  }
  try {
    return credentials_from_environment();
  } catch (const Error& error) {
    throw Error(ErrorKind::kNoKey, concat("nobody has credentials for it (the trusted service: ", reason,
                                          "; the environment: ", error.cause(), ")"));
  }
}

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[sizeof("YYYYMMDDTHHMMSSZ")];
  return std::string(text, std::strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &parts));
}

Secret joined(std::initializer_list<std::string_view> texts) {
  size_t size = 0;
  for (const std::string_view text : texts) {
    size += text.size();
  }
  Secret result(size);
  char* out = reinterpret_cast<char*>(result.bytes().data());
  for (const std::string_view text : texts) {
    out = std::copy(text.begin(), text.end(), out);
  }
  return result;
}

}  // namespace

Kms Kms::from_environment(TrustedService& service, const std::stop_token& stop) {
  // First what costs nothing: nobody waits for a service only to hear then that a name is missing.
  KmsSettings settings = KmsSettings::from_environment();
  return Kms(std::move(settings), find_credentials(service, stop), service);
}

std::string Kms::wrap(const Secret& data_key, const std::stop_token& stop) {
  std::string encoded = base64_encode(data_key.bytes());
  const Secret plaintext{std::string_view(encoded)};
  OPENSSL_cleanse(encoded.data(), encoded.size());
  // Base64 needs no escapes in JSON.
  const Secret body = joined({"{\"Plaintext\": \"", plaintext.text(), "\"}"});
  return wrapped_key_in(ask("Encrypt", body, plaintext, stop));
}

Secret Kms::unwrap(std::string_view wrapped_key, const std::stop_token& stop) {
  // What a file says may be no UTF-8.
  const std::string body = nlohmann::json{{"CiphertextBlob", wrapped_key}}.dump(-1, ' ', /*ensure_ascii=*/false,
                                                                                nlohmann::json::error_handler_t::replace);
  return unwrapped_key_in(ask("Decrypt", Secret(std::string_view(body)), Secret(), stop));
}

JsonStrings Kms::ask(std::string_view action, const Secret& body, const Secret& secret, const std::stop_token& stop) {
  const Secret* const hidden[] = {&secret, &credentials_.secret_key, &credentials_.session_token};
  for (size_t attempt = 0;; ++attempt) {
    std::string reason;
    bool may_pass = false;
    try {
      const HttpResponse response = send_signed(action, body, stop);
      if (response.status == 200) {
        return JsonStrings::parse(response.body.text());
      }
      reason = refusal_in(response, hidden);
      may_pass = response.status == 429 || (response.status >= 500 && response.status < 600);
    } catch (const HttpError& error) {
      reason = error.cause();
      may_pass = error.lasts() == HttpError::Lasts::kMaybeNot;
    }
    if (!may_pass) {
      throw Error(ErrorKind::kNoKey, reason);
    }
    if (attempt == std::size(kPauses)) {
      throw Error(ErrorKind::kNoKey, concat(reason, " (", attempt + 1, " attempts)"));
    }
    pause(kPauses[attempt], stop);
  }
}

HttpResponse Kms::send_signed(std::string_view action, const Secret& body, const std::stop_token& stop) {
  const std::string query = concat("Action=", action, "&KeyName=", percent_encoded(settings_.key_name),
                                   "&KeyringName=", percent_encoded(settings_.keyring_name), "&Version=2021-02-18");
  const std::string date = utc_now();
  const KmsSignedParts parts{
      .query = query, .host = settings_.host, .body = body.text(), .date = date, .region = settings_.region};
  const bool through_service = service_.is_there();
  HttpRequest request{.url = concat(through_service ? "http" : settings_.scheme, "://", settings_.host, "/?", query),
                      .unix_socket = {},
                      .body = body.clone(),
                      .proxy = settings_.proxy};
  // Given, not left to curl: it would leave out a port that is the scheme's own, and the signature would not match.
  request.add_header("Host", settings_.host);
  request.add_header("Content-Type", "application/json");
  request.add_header("X-Date", date);
  request.add_header("X-Content-Sha256", sha256_hex(body.text()));
  if (!credentials_.session_token.empty()) {
    request.add_header("X-Security-Token", credentials_.session_token.text());
  }
  request.add_header("Authorization", kms_authorization(parts, credentials_));
  return through_service ? service_.forward(std::move(request), stop) : send(request, stop);
}

crypto::DataKey KmsProvider::get(const KeyRequest& request, std::stop_token stop) {
  if (!request.header) {
    throw Error(ErrorKind::kNoKey, "the file has no header with a wrapped key");
  }
  Secret key = Kms::from_environment(service_, stop).unwrap(request.header->wrapped_key, stop);
  const size_t wanted = format::cipher_key_bytes(request.header->mode);
  if (key.size() != wanted) {
    throw Error(ErrorKind::kNoKey, concat("the unwrapped key has ", key.size(), " bytes, by the file's header it has ", wanted));
  }
  return crypto::make_data_key(std::move(key), request.header->iv, "the unwrapped key", "the header's IV");
}

}  // namespace veturbo::keys
