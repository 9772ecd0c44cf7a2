#include "torch/errors.h"

#include <c10/util/Exception.h>

#include <algorithm>

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

// Bytes of the UTF-8 character that `text` begins with; 0 when it begins with none.
size_t utf8_length(std::string_view text) {
  const auto byte = [text](size_t i) -> unsigned { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const auto follows = [byte](size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first < 0x80) {
    return 1;
  }
  if (first >= 0xC2 && first <= 0xDF) {
    return follows(1) ? 2 : 0;
  }
  // The second byte's limits leave out what has a shorter form, the surrogates, and what lies beyond U+10FFFF.
  if (first >= 0xE0 && first <= 0xEF) {
    const bool in_range = byte(1) >= (first == 0xE0 ? 0xA0U : 0x80U) && byte(1) <= (first == 0xED ? 0x9FU : 0xBFU);
    return in_range && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool in_range = byte(1) >= (first == 0xF0 ? 0x90U : 0x80U) && byte(1) <= (first == 0xF4 ? 0x8FU : 0xBFU);
    return in_range && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

std::string escaped(char byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  const auto value = static_cast<unsigned char>(byte);
  return {'\\', 'x', kDigits[value / 16], kDigits[value % 16]};
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

// An exception's text ends at its first NUL, which a tensor's name may contain.
std::string without_nul(const std::string& text) {
  std::string visible;
  for (const char c : text) {
    visible += c == '\0' ? escaped(c) : std::string(1, c);
  }
  return visible;
}

}  // namespace

LastError last_error() {
  return std::exchange(thread_last_error(), no_error());
}

std::string valid_utf8(std::string_view text) {
  std::string valid;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) {
      valid += escaped(text.front());
    } else {
      valid += text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return valid;
}

std::vector<std::string> valid_utf8(std::vector<std::string> texts) {
  for (std::string& text : texts) {
    text = valid_utf8(text);
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
                         valid_utf8(error.cause())};
  const std::string message = without_nul(valid_utf8(error.message()));
  switch (error.kind()) {
    case ErrorKind::kFormat:
    case ErrorKind::kTorchFile:
    case ErrorKind::kInvalidArgument:
    case ErrorKind::kWrongKey:
      C10_THROW_ERROR(ValueError, message);
    default:
      C10_THROW_ERROR(Error, message);
  }
}

}  // namespace veturbo
