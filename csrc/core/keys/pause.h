#pragma once

#include <chrono>
#include <stop_token>

namespace veturbo::keys {

// Throws Error(kCancelled) when `stop` was requested.
void throw_if_stopped(const std::stop_token& stop);

// Sleeps; throws Error(kCancelled) as soon as `stop` is requested.
void pause(std::chrono::milliseconds duration, const std::stop_token& stop);

}  // namespace veturbo::keys
