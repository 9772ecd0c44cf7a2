#include "torch/cipher.h"

#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "storage/open.h"

namespace veturbo {

namespace {

std::optional<Secret> secret_of(const std::optional<at::Tensor>& tensor, const char* name) {
  if (!tensor) {
    return std::nullopt;
  }
  if (!tensor->defined() || !tensor->is_cpu() || tensor->scalar_type() != at::kByte || !tensor->is_contiguous() ||
      tensor->dim() != 1) {
    throw Error(ErrorKind::kInvalidArgument, concat(name, " is not a one-dimensional tensor of uint8 on the CPU"));
  }
  return Secret(std::span(static_cast<const std::byte*>(tensor->const_data_ptr()), tensor->nbytes()));
}

template <typename Find>
OptionalCipher find_if_wanted(const std::string& file, const CipherArguments& arguments, Find find) {
  try {
    engine::GivenKey given = given_key(arguments);
    if (!engine::wants_cipher(arguments.use_cipher, given)) {
      return std::nullopt;
    }
    return c10::make_intrusive<Cipher>(find(file, std::move(given), std::stop_token()));
  } catch (Error& error) {
    throw error.in_file(file);
  }
}

}  // namespace

engine::GivenKey given_key(const CipherArguments& arguments) {
  return {secret_of(arguments.key, "key"), secret_of(arguments.iv, "iv")};
}

OptionalCipher find_cipher(const std::string& file, const CipherArguments& arguments) {
  return find_if_wanted(file, arguments, engine::find_cipher);
}

OptionalCipher make_cipher(const std::string& file, const CipherArguments& arguments) {
  return find_if_wanted(file, arguments, engine::make_cipher);
}

CipherJob::CipherJob(const std::string& file, const CipherArguments& arguments, Purpose purpose) {
  try {
    // In a shared pointer because a std::function must be copyable; the key in it is not.
    auto given = std::make_shared<engine::GivenKey>(given_key(arguments));
    const bool is_encrypted = engine::wants_cipher(arguments.use_cipher, *given);
    if (!is_encrypted && storage::is_local(file)) {
      job_.start(0, 0, 0, {.run = [](engine::Job&, size_t) {}});
      return;
    }
    const auto find = purpose == Purpose::kLoad ? engine::find_cipher : engine::make_cipher;
    job_.start(1, 0, 0, {.run = [this, file, is_encrypted, find, given](engine::Job&, size_t) {
                 storage::prepare(file, stop_.get_token());
                 if (is_encrypted) {
                   cipher_ = c10::make_intrusive<Cipher>(find(file, std::move(*given), stop_.get_token()));
                 }
               }});
  } catch (Error& error) {
    throw error.in_file(file);
  }
}

void CipherJob::cancel() {
  job_.cancel();
  stop_.request_stop();
}

OptionalCipher CipherJob::result() {
  job_.wait(std::nullopt);
  job_.rethrow_if_failed();
  return cipher_;
}

}  // namespace veturbo
