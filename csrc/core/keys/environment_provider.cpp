#include "keys/environment_provider.h"

#include <utility>

#include "base/base64.h"
#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"

namespace veturbo::keys {

namespace {

struct Variable {
  const char* name;
  Secret value;
};

Variable decoded_variable(const char* name, const char* misprint) {
  if (environment_variable(name).empty() && !environment_variable(misprint).empty()) {
    name = misprint;
  }
  const std::string_view text = environment_variable(name);
  if (text.empty()) {
    throw Error(ErrorKind::kNoKey, concat(name, " is not set"));
  }
  std::optional<Secret> value = base64_decode(text);
  if (!value) {
    throw Error(ErrorKind::kNoKey, concat(name, " is not base64 (it has ", text.size(), " characters)"));
  }
  return {name, std::move(*value)};
}

}  // namespace

crypto::DataKey EnvironmentProvider::get(const KeyRequest&, std::stop_token) {
  Variable key = decoded_variable("VETURBOIO_KEY", "VETUROIO_KEY");
  const Variable iv = decoded_variable("VETURBOIO_IV", "VETUROIO_IV");
  return crypto::make_data_key(std::move(key.value), iv.value.bytes(), key.name, iv.name);
}

}  // namespace veturbo::keys
