#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/secret.h"

// HTTP/1.1, over TCP, TLS or a unix socket, for the few small questions that are asked about keys. Certificates are always
// verified, redirects never followed: what is sent here is for the one host that it was signed for.
namespace veturbo::keys {

enum class Proxy {
  kFromEnvironment,  // https_proxy and its like
  kNone,
};

struct HttpRequest {
  std::string url;
  std::string unix_socket;        // its path; empty for a connection to the url's host
  std::optional<Secret> body;     // with one it is a POST, else a GET
  std::vector<Secret> headers{};  // by add_header(): each may hold a token
  Proxy proxy = Proxy::kFromEnvironment;

  // Throws Error(kInvalidArgument) for a value that HTTP has no place for, as a path with a line break: what follows the break
  // would be read as a header of its own.
  void add_header(std::string_view name, std::string_view value);
};

struct HttpResponse {
  int status = 0;
  Secret body;
};

struct HttpLimits {
  std::chrono::milliseconds to_connect = std::chrono::seconds(10);
  std::chrono::milliseconds in_all = std::chrono::seconds(30);
  size_t response_bytes = size_t{1} << 20;
};

// No answer came.
class HttpError final : public Error {
 public:
  enum class Lasts { kMaybeNot, kYes };  // whether to ask again is worth a try

  HttpError(Lasts lasts, const std::string& cause) : Error(ErrorKind::kIo, cause), lasts_(lasts) {}
  Lasts lasts() const { return lasts_; }

 private:
  Lasts lasts_;
};

// Whatever its status, an answer is a response. Throws HttpError, and Error(kCancelled) at once when `stop` is requested,
// whatever the connection is waiting for.
HttpResponse send(const HttpRequest& request, const std::stop_token& stop, const HttpLimits& limits = {});

}  // namespace veturbo::keys
