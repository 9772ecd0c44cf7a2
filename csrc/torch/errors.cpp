#include "torch/errors.h"

#include <c10/util/Exception.h>

namespace veturbo {

namespace {

LastError& thread_last_error() {
  thread_local LastError error{"", 0, "", "", -1, ""};
  return error;
}

const char* kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kIo:
      return "io";
    case ErrorKind::kFormat:
      return "format";
    case ErrorKind::kTorchFile:
      return "torch_file";
    case ErrorKind::kInvalidArgument:
      return "invalid_argument";
    case ErrorKind::kOutOfMemory:
      return "out_of_memory";
    case ErrorKind::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

}  // namespace

LastError last_error() {
  return thread_last_error();
}

void detail::clear_last_error() {
  std::get<0>(thread_last_error()).clear();
}

void detail::raise(const Error& error) {
  thread_last_error() = {kind_name(error.kind()),
                         error.code(),
                         error.file(),
                         error.tensor(),
                         error.offset() ? static_cast<int64_t>(*error.offset()) : -1,
                         error.cause()};
  switch (error.kind()) {
    case ErrorKind::kFormat:
    case ErrorKind::kTorchFile:
    case ErrorKind::kInvalidArgument:
      C10_THROW_ERROR(ValueError, error.what());
    default:
      C10_THROW_ERROR(Error, error.what());
  }
}

}  // namespace veturbo
