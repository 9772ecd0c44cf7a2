#include "keys/find_key.h"

#include <openssl/rand.h>

#include <ctime>

#include "base/concat.h"
#include "base/error.h"
#include "keys/environment_provider.h"
#include "keys/kms.h"
#include "keys/pause.h"
#include "keys/trusted_service.h"

namespace veturbo::keys {

namespace {

void check_random(int result) {
  if (result != 1) {
    throw Error(ErrorKind::kIo, "OpenSSL has no random bytes");
  }
}

unsigned char* as_uchar(std::span<std::byte> bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

}  // namespace

FoundKey first_key(std::span<KeyProvider* const> providers, const KeyRequest& request, const std::stop_token& stop) {
  std::string reasons;
  for (KeyProvider* const provider : providers) {
    throw_if_stopped(stop);
    try {
      return {provider->get(request, stop), std::string(provider->name())};
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kCancelled) {
        throw;
      }
      reasons += concat(reasons.empty() ? "" : "; ", provider->name(), ": ", error.cause());
    }
  }
  throw Error(ErrorKind::kNoKey, concat("nobody has the key: ", reasons));
}

FoundKey find_key(const KeyRequest& request, const std::stop_token& stop) {
  TrustedService service(TrustedService::Settings::from_environment());
  KmsProvider kms(service);
  TrustedServiceProvider trusted_service(service);
  EnvironmentProvider environment;
  KeyProvider* const providers[] = {&kms, &trusted_service, &environment};
  return first_key(providers, request, stop);
}

WrappedKey make_wrapped_key(format::CipherMode mode, const std::stop_token& stop) {
  TrustedService service(TrustedService::Settings::from_environment());
  Secret key(format::cipher_key_bytes(mode));
  crypto::Iv iv;
  check_random(RAND_priv_bytes(as_uchar(key.bytes()), static_cast<int>(key.size())));
  check_random(RAND_bytes(as_uchar(iv), static_cast<int>(iv.size())));
  try {
    format::CipherHeader header{.mode = mode,
                                .iv = iv,
                                .wrapped_key = Kms::from_environment(service, stop).wrap(key, stop),
                                .file_timestamp = std::time(nullptr)};
    return {crypto::make_data_key(std::move(key), iv, "the new key", "the new IV"), std::move(header)};
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) {
      throw;
    }
    throw Error(ErrorKind::kNoKey, concat("the new data key was not wrapped: the KMS: ", error.cause()));
  }
}

}  // namespace veturbo::keys
