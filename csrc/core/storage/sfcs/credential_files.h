#pragma once

#include <optional>

#include "keys/credentials.h"

namespace veturbo::storage::sfcs {

// The keys that the files MLP_ACCESS_KEY and MLP_SECRET_KEY in the folder CREDENTIAL_PATH (default /mlplatform/.credential/)
// hold, if they are there. Throws Error(kInvalidArgument) when only one of them is or one is empty, Error(kIo) when they cannot
// be read.
std::optional<keys::Credentials> read_credential_files();

}  // namespace veturbo::storage::sfcs
