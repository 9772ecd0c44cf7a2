#include "torch/errors.h"

#include <c10/util/Exception.h>

#include "base/readable.h"

namespace veturbo {

namespace {

LastError no_error() {
  return {"", 0, "", "", -1, ""};
}

LastError& thread_last_error() {
  thread_local LastError error = no_error();
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
    case ErrorKind::kNoKey:
      return "no_key";
    case ErrorKind::kWrongKey:
      return "wrong_key";
    case ErrorKind::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

std::string latin1_to_utf8(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto value = static_cast<unsigned char>(c);
    if (value < 0x80) {
      text += c;
    } else {
      text += static_cast<char>(0xC0U | (value >> 6U));
      text += static_cast<char>(0x80U | (value & 0x3FU));
    }
  }
  return text;
}

}  // namespace

LastError last_error() {
  return std::exchange(thread_last_error(), no_error());
}

std::vector<std::string> readable(std::vector<std::string> texts) {
  for (std::string& text : texts) {
    text = readable(text);
  }
  return texts;
}

void detail::clear_last_error() {
  thread_last_error() = no_error();
}

void detail::raise(const Error& error) {
  thread_last_error() = {kind_name(error.kind()),
                         error.code(),
                         latin1_to_utf8(error.file()),
                         valid_utf8(error.tensor()),
                         error.offset() ? static_cast<int64_t>(*error.offset()) : -1,
                         error.cause()};
  switch (error.kind()) {
    case ErrorKind::kFormat:
    case ErrorKind::kTorchFile:
    case ErrorKind::kInvalidArgument:
    case ErrorKind::kWrongKey:
      C10_THROW_ERROR(ValueError, error.message());
    default:
      C10_THROW_ERROR(Error, error.message());
  }
}

}  // namespace veturbo
