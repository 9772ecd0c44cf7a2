#include "storage/sfcs/credential_files.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "storage/sfcs/small_file.h"

namespace veturbo::storage::sfcs {

namespace {

// Without the line break that editors put behind it.
Secret trimmed(const Secret& content, const std::string& file) {
  constexpr std::string_view kSpaces = " \t\r\n";
  std::string_view text = content.text();
  text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  text = text.substr(0, text.find_last_not_of(kSpaces) + 1);
  if (text.empty()) {
    throw Error(ErrorKind::kInvalidArgument, concat("the credential file ", file, " is empty"));
  }
  return Secret(text);
}

}  // namespace

std::optional<keys::Credentials> read_credential_files() {
  const std::string_view folder = environment_variable("CREDENTIAL_PATH");
  const std::filesystem::path parent(folder.empty() ? "/mlplatform/.credential/" : folder);
  const std::string access_file = (parent / "MLP_ACCESS_KEY").string();
  const std::string secret_file = (parent / "MLP_SECRET_KEY").string();
  const std::optional<Secret> access_key = read_if_there(access_file);
  const std::optional<Secret> secret_key = read_if_there(secret_file);
  if (!access_key && !secret_key) {
    return std::nullopt;
  }
  if (!access_key || !secret_key) {
    throw Error(ErrorKind::kInvalidArgument, concat("there is a credential file ", access_key ? access_file : secret_file,
                                                    ", but no ", access_key ? secret_file : access_file));
  }
  return keys::Credentials{.access_key = std::string(trimmed(*access_key, access_file).text()),
                           .secret_key = trimmed(*secret_key, secret_file),
                           .session_token = {}};
}

}  // namespace veturbo::storage::sfcs
