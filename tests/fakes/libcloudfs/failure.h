#pragma once

#include <string>

namespace fake {

// A call that fails as a call may: what its caller gets is the errno, and the reason as the last error's text.
struct Failure {
  int code;
  std::string reason;
};

constexpr int kKilled = 1000;  // no errno: the process is killed

[[noreturn]] void fail(int code, const std::string& reason = "");

// What no caller may do. There is nothing to return then: it says so and aborts the process.
[[noreturn]] void violation(const std::string& what);

std::string errno_name(int code);
int errno_number(const std::string& name);  // 0: there is none of that name

}  // namespace fake
