#include "keys/kms_settings.h"

#include <gtest/gtest.h>

#include "testing/environment.h"
#include "testing/errors.h"

namespace veturbo::keys {
namespace {

using testing::error_of;
using testing::ScopedEnvironment;

class KmsSettingsTest : public ::testing::Test {
  const ScopedEnvironment variables_{{"VETURBOIO_KMS_HOST", {}},
                                     {"VETURBOIO_KMS_REGION", {}},
                                     {"VETURBOIO_KMS_KEYRING_NAME", "ring"},
                                     {"VETURBOIO_KMS_KEY_NAME", "key"}};
};

TEST_F(KmsSettingsTest, HaveDefaultsForHostAndRegion) {
  const KmsSettings settings = KmsSettings::from_environment();
  EXPECT_EQ(settings.scheme, "https");
  EXPECT_EQ(settings.host, "open.volcengineapi.com");
  EXPECT_EQ(settings.proxy, Proxy::kFromEnvironment);
  EXPECT_EQ(settings.region, "cn-beijing");
  EXPECT_EQ(settings.keyring_name, "ring");
  EXPECT_EQ(settings.key_name, "key");
}

struct Host {
  const char* given;
  const char* scheme;
  const char* host;
  Proxy proxy;
};

TEST_F(KmsSettingsTest, TakeAHostOrItsUrl) {
  constexpr Host kHosts[] = {
      {"kms.example.com", "https", "kms.example.com", Proxy::kFromEnvironment},
      {"kms.example.com:8443", "https", "kms.example.com:8443", Proxy::kFromEnvironment},
      {"https://kms.example.com/", "https", "kms.example.com", Proxy::kFromEnvironment},
      {"http.example.com", "https", "http.example.com", Proxy::kFromEnvironment},
      {"127.0.0.1:8443", "https", "127.0.0.1:8443", Proxy::kNone},
      {"http://127.0.0.1:8080", "http", "127.0.0.1:8080", Proxy::kNone},
      {"http://localhost:8080/", "http", "localhost:8080", Proxy::kNone},
      {"http://[::1]:8080", "http", "[::1]:8080", Proxy::kNone},
  };
  for (const Host& expected : kHosts) {
    const ScopedEnvironment variables{{"VETURBOIO_KMS_HOST", expected.given}};
    const KmsSettings settings = KmsSettings::from_environment();
    EXPECT_EQ(settings.scheme, expected.scheme) << expected.given;
    EXPECT_EQ(settings.host, expected.host) << expected.given;
    EXPECT_EQ(settings.proxy, expected.proxy) << expected.given;
  }
}

TEST_F(KmsSettingsTest, WithoutTlsOnlyALoopbackHostIsAsked) {
  for (const std::string host :
       {"kms.example.com", "127.0.0.1.example.com", "localhost.example.com", "127.example", "[::2]:80", "10.0.0.1:80"}) {
    const ScopedEnvironment variables{{"VETURBOIO_KMS_HOST", "http://" + host}};
    EXPECT_EQ(error_of(KmsSettings::from_environment).message(),
              "VETURBOIO_KMS_HOST=http://" + host + ": without TLS only a loopback host is asked");
  }
}

TEST_F(KmsSettingsTest, WhatIsNoHostIsRefusedAndNotRepeated) {
  for (const char* const host : {"user:password@kms.example.com", "http://127.0.0.1@kms.example.com", "kms.example.com/path",
                                 "ftp://kms.example.com", "https://", "kms.example.com?a", "a b", "a\r\nX: y", "#"}) {
    const ScopedEnvironment variables{{"VETURBOIO_KMS_HOST", host}};
    EXPECT_EQ(error_of(KmsSettings::from_environment).message(),
              "VETURBOIO_KMS_HOST is neither HOST, HOST:PORT nor the url of one")
        << host;
  }
}

TEST_F(KmsSettingsTest, NeedTheNamesOfKeyringAndKey) {
  for (const std::string name : {"VETURBOIO_KMS_KEYRING_NAME", "VETURBOIO_KMS_KEY_NAME"}) {
    const ScopedEnvironment variables{{name, {}}};
    EXPECT_EQ(error_of(KmsSettings::from_environment).message(), name + " is not set");
  }
}

TEST(PercentEncoding, LeavesOnlyWhatNeedsNone) {
  EXPECT_EQ(percent_encoded("azAZ09-._~"), "azAZ09-._~");
  EXPECT_EQ(percent_encoded(" /+&=%\xC3\xBC"), "%20%2F%2B%26%3D%25%C3%BC");
}

}  // namespace
}  // namespace veturbo::keys
