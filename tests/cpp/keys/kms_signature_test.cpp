#include "keys/kms_signature.h"

#include <gtest/gtest.h>

namespace veturbo::keys {
namespace {

TEST(KmsSignature, HashesAsFips180Has) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

// Computed with Python's hmac and hashlib from the texts that the signature is defined by:
//
//   POST
//   /
//   Action=Encrypt&KeyName=key%2F1&KeyringName=ring%201&Version=2021-02-18
//   content-type:application/json
//   host:kms.example.com:8443
//   x-content-sha256:7a243d2fdbc11cb6b2874efb094de609004623474252aeb1285af40ace02e0e4
//   x-date:20260102T030405Z
//
//   content-type;host;x-content-sha256;x-date
//   7a243d2fdbc11cb6b2874efb094de609004623474252aeb1285af40ace02e0e4
//
// with the hash a40a1496e15100cf23fa770d0a3a37089828fdd47eef0d27c390077ab606e9f4, which is signed in
//
//   HMAC-SHA256
//   20260102T030405Z
//   20260102/cn-shanghai/kms/request
//   a40a1496e15100cf23fa770d0a3a37089828fdd47eef0d27c390077ab606e9f4
TEST(KmsSignature, IsTheOneComputedByHand) {
  const Credentials credentials{
      .access_key = "AKEXAMPLE", .secret_key = Secret(std::string_view("se/cret+key==")), .session_token = {}};
  const std::string authorization =
      kms_authorization({.query = "Action=Encrypt&KeyName=key%2F1&KeyringName=ring%201&Version=2021-02-18",
                         .host = "kms.example.com:8443",
                         .body = R"({"Plaintext": "AAECAwQFBgcICQoLDA0ODw=="})",
                         .date = "20260102T030405Z",
                         .region = "cn-shanghai"},
                        credentials);
  EXPECT_EQ(authorization,
            "HMAC-SHA256 Credential=AKEXAMPLE/20260102/cn-shanghai/kms/request, "
            "SignedHeaders=content-type;host;x-content-sha256;x-date, "
            "Signature=b6f336fa6dbce88f47b9c4a481bb6d0772494fff99f64660912219f8599d48e6");
}

}  // namespace
}  // namespace veturbo::keys
