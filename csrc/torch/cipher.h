#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "engine/cipher.h"
#include "engine/job.h"

namespace veturbo {

// How a file is encrypted, as programs hold it from when the key is found until it is used. Tells nothing of the key.
class Cipher : public torch::CustomClassHolder {
 public:
  explicit Cipher(engine::Cipher cipher) : cipher_(std::move(cipher)) {}

  const engine::Cipher& get() const { return cipher_; }
  // Who had the key.
  std::string source() const { return cipher_.source; }

 private:
  engine::Cipher cipher_;
};

// None: the file is not encrypted.
using OptionalCipher = std::optional<c10::intrusive_ptr<Cipher>>;

// What the engine's functions take.
inline const engine::Cipher* get(const OptionalCipher& cipher) {
  return cipher ? &(*cipher)->get() : nullptr;
}

// The arguments `use_cipher`, `key` and `iv` of an operator. The key and the IV are tensors of uint8 on the CPU.
struct CipherArguments {
  std::optional<bool> use_cipher;
  std::optional<at::Tensor> key;
  std::optional<at::Tensor> iv;
};

// Throws Error(kInvalidArgument) for tensors that are no bytes.
engine::GivenKey given_key(const CipherArguments& arguments);

OptionalCipher find_cipher(const std::string& file, const CipherArguments& arguments);
OptionalCipher make_cipher(const std::string& file, const CipherArguments& arguments);

// What a file needs before it is opened, under way: the credentials of its storage, and its key. Whoever holds those may be asked
// again and again for two minutes, which a user must be able to end.
class CipherJob : public torch::CustomClassHolder {
 public:
  enum class Purpose { kLoad, kSave };

  CipherJob(const std::string& file, const CipherArguments& arguments, Purpose purpose);
  ~CipherJob() override { stop_.request_stop(); }

  // As LoadJob's.
  bool wait(double seconds) { return job_.wait_seconds(seconds); }
  void cancel();
  // None when the file is not to be encrypted, or taken for encrypted.
  OptionalCipher result();

 private:
  std::stop_source stop_;
  OptionalCipher cipher_;
  engine::Job job_;  // last: its thread uses all of the above
};

}  // namespace veturbo
