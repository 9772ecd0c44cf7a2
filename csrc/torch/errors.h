#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"

// How the core's errors reach PyTorch's callers. An operator can only throw what PyTorch translates: a ValueError for a bad file
// or argument, a RuntimeError otherwise. So that Python can raise what its users expect (FileNotFoundError with errno and
// filename), the parts of a thread's last error are kept, as errno is, until its next call. All text is valid UTF-8: Python
// cannot take any other.
namespace veturbo {

// kind, errno, file, tensor, offset (-1: none), cause. kind is "" when the thread's last call did not fail. A path may be any
// bytes; each stands here as the character of that number (Latin-1).
using LastError = std::tuple<std::string, int64_t, std::string, std::string, int64_t, std::string>;

// And forgets it: of two calls in a row the second gives none.
LastError last_error();

// All of them: warnings name files, whose paths may be any bytes.
std::vector<std::string> readable(std::vector<std::string> texts);

namespace detail {
void clear_last_error();
[[noreturn]] void raise(const Error& error);
}  // namespace detail

// Every operator and method runs its body through this.
template <typename Body>
decltype(auto) with_errors(Body&& body) {
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
