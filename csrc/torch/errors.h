#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <tuple>
#include <utility>

#include "base/error.h"

// How the core's errors reach PyTorch's callers. An operator can only throw what PyTorch translates: a ValueError for a bad file
// or argument, a RuntimeError otherwise. So that Python can raise what its users expect (FileNotFoundError with errno and
// filename), the parts of a thread's last error are kept, as errno is, until its next call.
namespace veturbo {

// kind, errno, file, tensor, offset (-1: none), cause. kind is "" when the thread's last call did not fail.
using LastError = std::tuple<std::string, int64_t, std::string, std::string, int64_t, std::string>;

LastError last_error();

namespace detail {
void clear_last_error();
[[noreturn]] void raise(const Error& error);
}  // namespace detail

// Every operator and method runs its body through this.
template <typename Body>
auto with_errors(Body&& body) {
  detail::clear_last_error();
  try {
    return std::forward<Body>(body)();
  } catch (const Error& error) {
    detail::raise(error);
  } catch (const std::bad_alloc&) {
    detail::raise(Error(ErrorKind::kOutOfMemory, "not enough memory"));
  }
}

}  // namespace veturbo
