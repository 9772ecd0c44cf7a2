#include "keys/kms.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
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

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[sizeof("YYYYMMDDTHHMMSSZ")];
  return std::string(text, std::strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &parts));
}

// Base64 needs no escapes in JSON.
Secret plaintext_json(const Secret& data_key) {
  std::string text = base64_encode(data_key.bytes());
  std::string json;
  json.reserve(text.size() + 32);  // so that it does not grow, and leave a copy
  json.append("{\"Plaintext\": \"").append(text).append("\"}");
  Secret body{std::string_view(json)};
  OPENSSL_cleanse(text.data(), text.size());
  OPENSSL_cleanse(json.data(), json.size());
  return body;
}

// A server's words on their way into an error: no line breaks or other control characters, and at most `most` bytes of whole
// UTF-8 characters.
std::string quoted(std::string_view text, size_t most) {
  size_t size = std::min(text.size(), most);
  while (size < text.size() && size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0U) == 0x80U) {
    --size;
  }
  std::string result(text.substr(0, size));
  std::replace_if(result.begin(), result.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
  return size < text.size() ? result + "..." : result;
}

bool may_pass(int status) {
  return status == 429 || (status >= 500 && status < 600);
}

}  // namespace

Kms Kms::from_environment(TrustedService& service, const std::stop_token& stop) {
  // First what costs nothing: nobody waits for a service only to hear then that a name is missing.
  KmsSettings settings = KmsSettings::from_environment();
  std::string reason;
  try {
    return Kms(std::move(settings), service.kms_credentials(stop), service);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) {
      throw;
    }
    reason = error.cause();
  }
  try {
    return Kms(std::move(settings), credentials_from_environment(), service);
  } catch (const Error& error) {
    throw Error(ErrorKind::kNoKey, concat("nobody has credentials for it (the trusted service: ", reason,
                                          "; the environment: ", error.cause(), ")"));
  }
}

std::string Kms::wrap(const Secret& data_key, const std::stop_token& stop) {
  return std::string(ask("Encrypt", plaintext_json(data_key), stop).take("Result/CiphertextBlob").text());
}

Secret Kms::unwrap(std::string_view wrapped_key, const std::stop_token& stop) {
  // What a file says may be no UTF-8.
  const std::string json = nlohmann::json{{"CiphertextBlob", wrapped_key}}.dump(-1, ' ', /*ensure_ascii=*/false,
                                                                                nlohmann::json::error_handler_t::replace);
  const Secret text = ask("Decrypt", Secret(std::string_view(json)), stop).take("Result/Plaintext");
  std::optional<Secret> key = base64_decode(text.text());
  if (!key) {
    throw Error(ErrorKind::kNoKey, "the answer's Result/Plaintext is not base64");
  }
  return std::move(*key);
}

JsonStrings Kms::ask(std::string_view action, const Secret& body, const std::stop_token& stop) {
  for (size_t attempt = 0;; ++attempt) {
    std::string reason;
    try {
      const HttpResponse response = send_signed(action, body, stop);
      if (response.status == 200) {
        return JsonStrings::parse(response.body.text());
      }
      reason = refusal(response, body);
      if (!may_pass(response.status)) {
        throw Error(ErrorKind::kNoKey, concat(action, ": ", reason));
      }
    } catch (const HttpError& error) {
      reason = error.cause();
      if (error.lasts() == HttpError::Lasts::kYes) {
        throw Error(ErrorKind::kNoKey, concat(action, ": ", reason));
      }
    }
    if (attempt == std::size(kPauses)) {
      throw Error(ErrorKind::kNoKey, concat(action, ": ", reason, " (", attempt + 1, " attempts)"));
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

// The server's own code and text are most of what there is to go by, unless it repeats what nobody may see.
std::string Kms::refusal(const HttpResponse& response, const Secret& body) const {
  std::string text = concat("the answer has status ", response.status);
  const auto tells = [&response](std::string_view secret) {
    return !secret.empty() && response.body.text().find(secret) != std::string_view::npos;
  };
  if (tells(credentials_.secret_key.text()) || tells(credentials_.session_token.text()) || tells(body.text())) {
    return text;
  }
  try {
    JsonStrings answer = JsonStrings::parse(response.body.text());
    const Secret code = answer.take("ResponseMetadata/Error/Code");
    const Secret message = answer.take_if_any("ResponseMetadata/Error/Message");
    text += concat(", ", quoted(code.text(), 64), message.empty() ? "" : ": ", quoted(message.text(), 256));
  } catch (const Error&) {
    // It has not said why.
  }
  return text;
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
