#include "keys/kms_settings.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"

namespace veturbo::keys {

namespace {

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_host_character(char c) {
  return is_alphanumeric(c) || std::string_view("-._:[]").find(c) != std::string_view::npos;
}

std::string required(const char* name) {
  const std::string_view value = environment_variable(name);
  if (value.empty()) {
    throw Error(ErrorKind::kNoKey, concat(name, " is not set"));
  }
  return std::string(value);
}

bool is_loopback(std::string_view host) {
  if (host.starts_with('[')) {
    return host.substr(0, host.find(']') + 1) == "[::1]";
  }
  const std::string name(host.substr(0, host.find(':')));
  // By the address and not by how it begins: 127.0.0.1.example.com is a name like any other.
  in_addr address;
  return name == "localhost" || (::inet_pton(AF_INET, name.c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24U) == 127);
}

}  // namespace

KmsSettings KmsSettings::from_environment() {
  KmsSettings settings;
  std::string_view host = environment_variable("VETURBOIO_KMS_HOST");
  if (host.empty()) {
    host = "open.volcengineapi.com";
  }
  settings.scheme = "https";
  for (const std::string_view scheme : {"http", "https"}) {
    if (host.starts_with(concat(scheme, "://"))) {
      settings.scheme = scheme;
      host.remove_prefix(scheme.size() + 3);
      host = host.substr(0, host.ends_with('/') ? host.size() - 1 : host.size());
      break;
    }
  }
  // The value is not told: a url may have a password in it.
  if (host.empty() || !std::all_of(host.begin(), host.end(), is_host_character)) {
    throw Error(ErrorKind::kNoKey, "VETURBOIO_KMS_HOST is neither HOST, HOST:PORT nor the url of one");
  }
  if (settings.scheme == "http" && !is_loopback(host)) {
    throw Error(ErrorKind::kNoKey, concat("VETURBOIO_KMS_HOST=http://", host, ": without TLS only a loopback host is asked"));
  }
  settings.host = host;
  settings.proxy = is_loopback(host) ? Proxy::kNone : Proxy::kFromEnvironment;
  const std::string_view region = environment_variable("VETURBOIO_KMS_REGION");
  settings.region = region.empty() ? "cn-beijing" : region;
  settings.keyring_name = required("VETURBOIO_KMS_KEYRING_NAME");
  settings.key_name = required("VETURBOIO_KMS_KEY_NAME");
  return settings;
}

std::string percent_encoded(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    if (is_alphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~') {
      encoded += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded += {'%', kDigits[byte >> 4U], kDigits[byte & 15U]};
    }
  }
  return encoded;
}

}  // namespace veturbo::keys
