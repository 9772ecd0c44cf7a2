#include "keys/trusted_service.h"

#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "keys/answers.h"
#include "keys/pause.h"

namespace veturbo::keys {

namespace {

constexpr std::string_view kTaskHeader = "X-Datapipe-Task-Type";
constexpr int kMaxRetries = 1'000'000;
constexpr double kMaxInterval = 3600;

template <typename Number>
void read_number(const char* name, Number most, std::string_view wanted, Number& out) {
  const std::string_view text = environment_variable(name);
  if (text.empty()) {
    return;
  }
  Number value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Not a number fails both comparisons.
  if (code != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= most)) {
    throw Error(ErrorKind::kInvalidArgument, concat(name, "=", text, ": give ", wanted, " from 0 to ", most));
  }
  out = value;
}

}  // namespace

TrustedService::Settings TrustedService::Settings::from_environment() {
  Settings settings;
  if (const std::string_view socket = environment_variable("DATAPIPE_SOCKET_PATH"); !socket.empty()) {
    settings.socket = socket;
  }
  settings.pod = environment_variable("POD_NAME");
  read_number("VETURBOIO_DATAPIPE_RETRY", kMaxRetries, "a whole number", settings.retries);
  double seconds = std::chrono::duration<double>(settings.interval).count();
  read_number("VETURBOIO_DATAPIPE_RETRY_INTERVAL", kMaxInterval, "seconds", seconds);
  settings.interval = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::duration<double>(seconds));
  return settings;
}

void TrustedService::throw_if_absent() const {
  struct stat status;
  if (::stat(settings_.socket.c_str(), &status) != 0) {
    throw Error(ErrorKind::kNoKey, Error::from_errno(errno, concat("socket ", settings_.socket)).cause());
  }
  if (settings_.socket.size() >= sizeof(sockaddr_un::sun_path)) {
    throw Error(ErrorKind::kNoKey, concat("socket ", settings_.socket, ": a socket's path has at most ",
                                          sizeof(sockaddr_un::sun_path) - 1, " bytes"));
  }
  if (unreachable_) {
    throw Error(ErrorKind::kNoKey, *unreachable_);
  }
}

bool TrustedService::is_there() const {
  try {
    throw_if_absent();
    return true;
  } catch (const Error&) {
    return false;
  }
}

JsonStrings TrustedService::ask(std::string_view task, const std::vector<Header>& headers, const std::stop_token& stop) {
  HttpRequest request{.url = "http://localhost/", .unix_socket = settings_.socket, .body = std::nullopt};
  request.add_header(kTaskHeader, task);
  for (const auto& [name, value] : headers) {
    request.add_header(name, value);
  }
  // A service that lets every question time out has the same two minutes, and not half an hour.
  const HttpLimits limits;
  const auto end = std::chrono::steady_clock::now() + settings_.retries * settings_.interval + limits.in_all;
  for (int attempt = 1;; ++attempt) {
    throw_if_absent();
    std::string reason;
    bool answered = true;
    try {
      const HttpResponse response = send(request, stop, limits);
      if (response.status == 200) {
        return JsonStrings::parse(response.body.text());
      }
      reason = concat("the answer has status ", response.status);
    } catch (const HttpError& error) {
      reason = error.cause();
      answered = error.lasts() == HttpError::Lasts::kYes;
    }
    if (attempt > settings_.retries || std::chrono::steady_clock::now() >= end) {
      reason = concat(reason, " (", attempt, attempt == 1 ? " attempt)" : " attempts)");
      if (!answered) {
        unreachable_ = reason;
      }
      throw Error(ErrorKind::kNoKey, reason);
    }
    pause(settings_.interval, stop);
  }
}

void TrustedService::ping(const std::stop_token& stop) {
  if (ask("ping", {}, stop).take("message").text() != "pong") {
    throw Error(ErrorKind::kNoKey, "the answer to a ping is not pong");
  }
}

crypto::DataKey TrustedService::data_key(const std::string& path, const std::stop_token& stop) {
  std::vector<Header> headers{{"X-TOS-Path", path}};
  if (!settings_.pod.empty()) {
    headers.emplace_back("X-Encrypt-Caller-Pod", settings_.pod);
  }
  return data_key_in(ask("encrypt-key", headers, stop));
}

Credentials TrustedService::kms_credentials(const std::stop_token& stop) {
  return kms_credentials_in(ask("kms-sts", {}, stop));
}

SfcsCredentials TrustedService::sfcs_credentials(const std::stop_token& stop) {
  return sfcs_credentials_in(ask("sfcs-sts", {}, stop));
}

HttpResponse TrustedService::forward(HttpRequest request, const std::stop_token& stop) {
  request.unix_socket = settings_.socket;
  request.add_header(kTaskHeader, "top");
  return send(request, stop);
}

}  // namespace veturbo::keys
