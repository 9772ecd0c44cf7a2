#pragma once

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "keys/credentials.h"
#include "keys/http_client.h"
#include "keys/json_strings.h"
#include "keys/key_provider.h"

namespace veturbo::keys {

// The service beside a container that knows the keys and credentials of its pod. It speaks HTTP on a unix socket, and tells
// requests apart by a header.
//
// It may start later than we do, or be busy: what it does not answer with 200 is asked again, for two minutes by default. Where
// there is no socket there is no service, and nothing to wait for.
class TrustedService {
 public:
  struct Settings {
    std::string socket = "/finetuned-model/datapipe.sock";
    std::string pod;  // whose key is asked for; may be empty
    int retries = 60;
    std::chrono::milliseconds interval = std::chrono::seconds(2);

    // Throws Error(kInvalidArgument) for a number that is none.
    static Settings from_environment();
  };

  explicit TrustedService(Settings settings) : settings_(std::move(settings)) {}

  // Whether there is a socket, and nobody has found it dead.
  bool is_there() const;

  // All of these throw Error(kNoKey) when there is no answer to be had, and Error(kCancelled) soon after `stop` was requested.
  void ping(const std::stop_token& stop);
  crypto::DataKey data_key(const std::string& path, const std::stop_token& stop);
  Credentials kms_credentials(const std::stop_token& stop);
  SfcsCredentials sfcs_credentials(const std::stop_token& stop);

  // Has a request to the KMS sent on by the service. Asked once: what is worth a retry, the KMS's client knows. Throws HttpError.
  HttpResponse forward(HttpRequest request, const std::stop_token& stop);

 private:
  using Header = std::pair<std::string_view, std::string_view>;

  JsonStrings ask(std::string_view task, const std::vector<Header>& headers, const std::stop_token& stop);
  void throw_if_absent() const;

  Settings settings_;
  // Why it could not be reached after all retries: two minutes are waited once for one file, not once a question.
  std::optional<std::string> unreachable_;
};

class TrustedServiceProvider final : public KeyProvider {
 public:
  explicit TrustedServiceProvider(TrustedService& service) : service_(service) {}

  std::string_view name() const override { return "the trusted service"; }
  crypto::DataKey get(const KeyRequest& request, std::stop_token stop) override { return service_.data_key(request.path, stop); }

 private:
  TrustedService& service_;
};

}  // namespace veturbo::keys
