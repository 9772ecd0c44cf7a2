#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "base/error.h"

namespace veturbo::testing {

// Runs `body` and gives the Error that it throws; a test that expects one and gets none has failed.
inline Error error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no Error was thrown";
  return Error(ErrorKind::kInvalidArgument, "no Error was thrown");
}

}  // namespace veturbo::testing
