#include "base/error.h"

#include <system_error>

#include "base/readable.h"

namespace veturbo {

namespace {

constexpr size_t kMostOfAName = 256;  // a header may name a tensor with megabytes

}  // namespace

Error::Error(ErrorKind kind, const std::string& cause, int code) : kind_(kind), code_(code), cause_(readable(cause)) {
  compose();
}

Error Error::from_errno(int code, std::string_view call) {
  // strerror() is not thread-safe; the C++ library's own category is.
  std::string cause = std::generic_category().message(code);
  if (!call.empty()) {
    cause = std::string(call) + ": " + cause;
  }
  return Error(ErrorKind::kIo, cause, code);
}

Error& Error::at_offset(uint64_t offset) {
  if (!offset_) {
    offset_ = offset;
    compose();
  }
  return *this;
}

Error& Error::in_file(std::string_view file) {
  if (file_.empty()) {
    file_ = file;
    compose();
  }
  return *this;
}

Error& Error::in_tensor(std::string_view name) {
  if (tensor_.empty()) {
    tensor_ = name;
    compose();
  }
  return *this;
}

void Error::compose() {
  message_.clear();
  if (!file_.empty()) {
    message_ += readable(file_) + ": ";
  }
  if (!tensor_.empty()) {
    message_ += "tensor \"" + readable(tensor_, kMostOfAName) + "\": ";
  }
  message_ += cause_;
  if (offset_) {
    message_ += " (at byte " + std::to_string(*offset_) + ")";
  }
}

}  // namespace veturbo
