#pragma once

#include <span>
#include <string>

#include "crypto/data_key.h"
#include "keys/credentials.h"
#include "keys/http_client.h"
#include "keys/json_strings.h"

// What the answers of the trusted service and of the KMS mean. How they are asked for stands elsewhere: these are the bytes of
// others, and are believed in nothing.
namespace veturbo::keys {

// Of the trusted service. All throw Error for an answer that lacks what it should have, and for what that cannot be.
crypto::DataKey data_key_in(JsonStrings answer);
Credentials kms_credentials_in(JsonStrings answer);
SfcsCredentials sfcs_credentials_in(JsonStrings answer);

// Of the KMS. The same.
std::string wrapped_key_in(JsonStrings answer);
Secret unwrapped_key_in(JsonStrings answer);

// Why the KMS refuses, in its own words, which are most of what there is to go by; unless they repeat one of `hidden`.
std::string refusal_in(const HttpResponse& response, std::span<const Secret* const> hidden);

}  // namespace veturbo::keys
