#include "keys/answers.h"

#include <chrono>
#include <optional>
#include <string_view>
#include <utility>

#include "base/base64.h"
#include "base/concat.h"
#include "base/error.h"
#include "base/iso_time.h"
#include "base/readable.h"

namespace veturbo::keys {

namespace {

Secret decoded(JsonStrings& answer, std::string_view path) {
  std::optional<Secret> value = base64_decode(answer.take(path).text());
  if (!value) {
    throw Error(ErrorKind::kNoKey, concat("the answer's ", path, " is not base64"));
  }
  return std::move(*value);
}

std::chrono::sys_seconds time_of(JsonStrings& answer, std::string_view path) {
  const std::optional<std::chrono::sys_seconds> time = parse_iso_time(answer.take(path).text());
  if (!time) {
    throw Error(ErrorKind::kNoKey, concat("the answer's ", path, " is not a time"));
  }
  return *time;
}

}  // namespace

crypto::DataKey data_key_in(JsonStrings answer) {
  Secret key = decoded(answer, "Key");
  return crypto::make_data_key(std::move(key), decoded(answer, "IV").bytes(), "the answer's Key", "the answer's IV");
}

Credentials kms_credentials_in(JsonStrings answer) {
  return {.access_key = std::string(answer.take("Cred/AccessKeyId").text()),
          .secret_key = answer.take("Cred/SecretAccessKey"),
          .session_token = answer.take_if_any("Cred/SessionToken")};
}

SfcsCredentials sfcs_credentials_in(JsonStrings answer) {
  // By the service's clock, both of them: ours may be wrong.
  const std::chrono::sys_seconds now = time_of(answer, "Cred/CurrentTime");
  const std::chrono::sys_seconds end = time_of(answer, "Cred/ExpiredTime");
  if (end <= now) {
    throw Error(ErrorKind::kNoKey, "the answer's Cred/ExpiredTime is not after its Cred/CurrentTime");
  }
  return {.credentials = {.access_key = std::string(answer.take("Cred/AccessKeyId").text()),
                          .secret_key = answer.take("Cred/SecretAccessKey"),
                          .session_token = answer.take("Cred/SessionToken")},
          .name_node = std::string(answer.take("SfcsNameNodeAddress").text()),
          .lifetime = end - now};
}

std::string wrapped_key_in(JsonStrings answer) {
  return std::string(answer.take("Result/CiphertextBlob").text());
}

Secret unwrapped_key_in(JsonStrings answer) {
  return decoded(answer, "Result/Plaintext");
}

std::string refusal_in(const HttpResponse& response, std::span<const Secret* const> hidden) {
  std::string text = concat("the answer has status ", response.status);
  Secret code;
  Secret message;
  try {
    JsonStrings answer = JsonStrings::parse(response.body.text());
    code = answer.take("ResponseMetadata/Error/Code");
    message = answer.take_if_any("ResponseMetadata/Error/Message");
  } catch (const Error&) {
    return text;  // it has not said why
  }
  for (const Secret* const secret : hidden) {
    if (!secret->empty() && (code.text().find(secret->text()) != std::string_view::npos ||
                             message.text().find(secret->text()) != std::string_view::npos)) {
      return text;
    }
  }
  return concat(text, ", ", readable(code.text(), 64), message.empty() ? "" : ": ", readable(message.text(), 256));
}

}  // namespace veturbo::keys
