#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/secret_memory.h"
#include "crypto/data_key.h"

// AES in counter mode (NIST SP 800-38A), as a stream that can be entered at any byte: block i of it is the encrypted counter
// IV + i, a big-endian number of 128 bits that wraps around. XORed with it, a model becomes ciphertext, and the other way round.
namespace veturbo::crypto {

class Keystream {
 public:
  virtual ~Keystream() = default;
  Keystream(const Keystream&) = delete;
  Keystream& operator=(const Keystream&) = delete;

  // Round keys are part of it.
  static void* operator new(size_t size) { return allocate_secret(size); }
  static void operator delete(void* memory, size_t size) { free_secret(memory, size); }

  // Writes to `out` the XOR of `in` and the stream from byte `offset` on. `in` and `out` are the same memory, or apart. May be
  // called by many threads at once.
  virtual void apply(uint64_t offset, std::span<const std::byte> in, std::byte* out) const = 0;
  void apply(uint64_t offset, std::span<std::byte> bytes) const { apply(offset, bytes, bytes.data()); }

 protected:
  Keystream() = default;
};

enum class CipherImplementation {
  kOpenSsl,
  kAesNi,    // AVX and AES-NI: one block an instruction
  kVaes256,  // AVX2 and VAES: two
  kVaes512,  // AVX-512 and VAES: four
};

// "openssl", "aesni", "vaes256", "vaes512".
std::string_view implementation_name(CipherImplementation implementation);

// Those that this processor runs, the fastest first. Never empty.
std::vector<CipherImplementation> available_implementations();

std::unique_ptr<Keystream> make_keystream(const DataKey& key, CipherImplementation implementation);
std::unique_ptr<Keystream> make_keystream(const DataKey& key);  // the fastest

}  // namespace veturbo::crypto
