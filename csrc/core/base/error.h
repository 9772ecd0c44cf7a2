#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

namespace veturbo {

enum class ErrorKind {
  kIo,               // the system refused; `code()` is its errno
  kFormat,           // the bytes are not what the file format says
  kTorchFile,        // the file is one of torch.save's, which only PyTorch reads
  kInvalidArgument,  // the caller asked for what cannot be
  kOutOfMemory,
  kNoKey,     // nobody has the key of an encrypted file
  kWrongKey,  // what it decrypts to is no model
  kCancelled,
};

// One failure, told so that its reader knows what to do. It is thrown with its cause, and each layer that it passes adds what
// only that layer knows: the offset, the file, the tensor. What was said first stays, since it was nearest to the cause.
//
// Files and servers have their say in a cause, and name tensors: cause() and message() are readable(), file() and tensor() as
// given.
class Error : public std::exception {
 public:
  Error(ErrorKind kind, const std::string& cause, int code = 0);

  // `call` names the system call that failed, `code` is its errno.
  static Error from_errno(int code, std::string_view call);

  Error& at_offset(uint64_t offset);
  Error& in_file(std::string_view file);
  Error& in_tensor(std::string_view name);

  ErrorKind kind() const { return kind_; }
  int code() const { return code_; }
  const std::string& cause() const { return cause_; }
  const std::string& file() const { return file_; }
  const std::string& tensor() const { return tensor_; }
  std::optional<uint64_t> offset() const { return offset_; }

  // FILE: tensor "NAME": CAUSE (at byte OFFSET)
  const std::string& message() const { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  void compose();

  ErrorKind kind_;
  int code_;
  std::string cause_;
  std::string file_;
  std::string tensor_;
  std::optional<uint64_t> offset_;
  std::string message_;
};

}  // namespace veturbo
