#include <chrono>

#include "base/base64.h"
#include "base/iso_time.h"
#include "keys/answers.h"
#include "require.h"
#include "targets.h"

namespace veturbo::fuzz {

namespace {

constexpr std::string_view kSecret = "hush";

void require_one_text_for_one_value(std::string_view text) {
  if (const std::optional<Secret> bytes = base64_decode(text)) {
    require(base64_encode(bytes->bytes()) == text, "two texts are the base64 of one value");
  }
}

void require_time_of_four_digit_years(std::string_view text) {
  using namespace std::chrono;
  if (const std::optional<sys_seconds> time = parse_iso_time(text)) {
    require(*time > sys_days(year(-1) / 12 / 30) && *time < sys_days(year(10000) / 1 / 3), "a time lies outside of its year");
  }
}

// Whatever the server says, a secret that it repeats is not passed on.
void require_discreet_refusal(std::string_view body) {
  const Secret hidden(kSecret);
  const Secret* const all[] = {&hidden};
  const std::string refusal = keys::refusal_in({.status = 400, .body = Secret(body)}, all);
  require_readable(refusal);
  require(refusal.find(kSecret) == std::string::npos, "a refusal repeats a secret");
}

}  // namespace

void key_answers(std::string_view input) {
  require_one_text_for_one_value(input);
  require_time_of_four_digit_years(input);
  require_discreet_refusal(input);
  const auto answer = [&] { return keys::JsonStrings::parse(input); };
  if (const auto key = unless_refused([&] { return keys::data_key_in(answer()); })) {
    require(key->key.size() == 16 || key->key.size() == 32, "a data key has another length");
  }
  if (const auto found = unless_refused([&] { return keys::kms_credentials_in(answer()); })) {
    require(!found->access_key.empty() && !found->secret_key.empty(), "credentials are empty");
  }
  if (const auto found = unless_refused([&] { return keys::sfcs_credentials_in(answer()); })) {
    require(found->lifetime >= std::chrono::seconds(1), "credentials have expired");
    require(!found->name_node.empty() && !found->credentials.session_token.empty(), "credentials are empty");
  }
  if (const auto wrapped = unless_refused([&] { return keys::wrapped_key_in(answer()); })) {
    require(!wrapped->empty(), "a wrapped key is empty");
  }
  unless_refused([&] { return keys::unwrapped_key_in(answer()); });
}

}  // namespace veturbo::fuzz
