#include "crypto/openssl_keystream.h"

#include <openssl/evp.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "crypto/counter.h"

namespace veturbo::crypto {

namespace {

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }  // wipes the key in it
};
using EvpContext = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

// OpenSSL takes lengths as int.
constexpr size_t kMostAtOnce = size_t{1} << 30;

unsigned char* as_uchar(std::byte* bytes) {
  return reinterpret_cast<unsigned char*>(bytes);
}
const unsigned char* as_uchar(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}

void check(int result) {
  if (result != 1) {
    throw Error(ErrorKind::kIo, "OpenSSL's AES-CTR failed");
  }
}

class OpenSslKeystream final : public Keystream {
 public:
  explicit OpenSslKeystream(const DataKey& key) : key_(key.clone()) { give_context(make_context()); }

  void apply(uint64_t offset, std::span<const std::byte> in, std::byte* out) const override {
    EvpContext context = take_context();
    const Iv counter = iv_of(counter_of(key_.iv) + offset / kBlockBytes);
    check(EVP_EncryptInit_ex(context.get(), nullptr, nullptr, nullptr, as_uchar(counter.data())));
    int written = 0;
    if (const size_t skipped = offset % kBlockBytes; skipped > 0) {
      unsigned char unused[kBlockBytes] = {};
      check(EVP_EncryptUpdate(context.get(), unused, &written, unused, static_cast<int>(skipped)));
    }
    while (!in.empty()) {
      const size_t size = std::min(in.size(), kMostAtOnce);
      check(EVP_EncryptUpdate(context.get(), as_uchar(out), &written, as_uchar(in.data()), static_cast<int>(size)));
      in = in.subspan(size);
      out += size;
    }
    give_context(std::move(context));
  }

 private:
  EvpContext make_context() const {
    EvpContext context(EVP_CIPHER_CTX_new());
    if (!context) {
      throw Error(ErrorKind::kOutOfMemory, "not enough memory");
    }
    const EVP_CIPHER* cipher = key_.key.size() == 16 ? EVP_aes_128_ctr() : EVP_aes_256_ctr();
    check(EVP_EncryptInit_ex(context.get(), cipher, nullptr, as_uchar(key_.key.bytes().data()), nullptr));
    return context;
  }

  EvpContext take_context() const {
    {
      std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        EvpContext context = std::move(free_.back());
        free_.pop_back();
        return context;
      }
    }
    return make_context();
  }

  void give_context(EvpContext context) const {
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(context));
  }

  DataKey key_;
  mutable std::mutex mutex_;
  mutable std::vector<EvpContext> free_;  // as many as there were threads at once
};

}  // namespace

std::unique_ptr<Keystream> make_openssl_keystream(const DataKey& key) {
  return std::make_unique<OpenSslKeystream>(key);
}

}  // namespace veturbo::crypto
