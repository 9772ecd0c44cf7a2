#pragma once

#include "keys/key_provider.h"

namespace veturbo::keys {

// VETURBOIO_KEY and VETURBOIO_IV, both base64, or in their place VETUROIO_KEY and VETUROIO_IV: the first documentation of this
// format has that misprint, and users have followed it.
class EnvironmentProvider final : public KeyProvider {
 public:
  std::string_view name() const override { return "the environment"; }
  crypto::DataKey get(const KeyRequest& request, std::stop_token stop) override;
};

}  // namespace veturbo::keys
