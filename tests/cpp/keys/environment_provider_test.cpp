#include "keys/environment_provider.h"

#include <gtest/gtest.h>

#include "base/base64.h"
#include "testing/environment.h"
#include "testing/errors.h"

namespace veturbo::keys {
namespace {

using testing::error_of;
using testing::ScopedEnvironment;

std::string base64(const std::string& text) {
  return base64_encode(std::as_bytes(std::span(text)));
}

const std::string kKey = "0123456789abcdef";
const std::string kIv = "fedcba9876543210";

class FromEnvironment : public ::testing::Test {
 protected:
  static crypto::DataKey get() { return EnvironmentProvider().get({}, {}); }

  const ScopedEnvironment nothing_{{"VETURBOIO_KEY", {}}, {"VETURBOIO_IV", {}}, {"VETUROIO_KEY", {}}, {"VETUROIO_IV", {}}};
};

void expect_key(const crypto::DataKey& found, const std::string& key, const std::string& iv) {
  EXPECT_EQ(found.key.text(), key);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(found.iv.data()), found.iv.size()), iv);
}

TEST_F(FromEnvironment, ComesAKeyOf128Bits) {
  const ScopedEnvironment variables{{"VETURBOIO_KEY", base64(kKey)}, {"VETURBOIO_IV", base64(kIv)}};
  expect_key(get(), kKey, kIv);
}

TEST_F(FromEnvironment, ComesAKeyOf256Bits) {
  const ScopedEnvironment variables{{"VETURBOIO_KEY", base64(kKey + kKey)}, {"VETURBOIO_IV", base64(kIv)}};
  expect_key(get(), kKey + kKey, kIv);
}

TEST_F(FromEnvironment, TheMisprintedNamesAreReadToo) {
  const ScopedEnvironment variables{{"VETUROIO_KEY", base64(kKey)}, {"VETUROIO_IV", base64(kIv)}};
  expect_key(get(), kKey, kIv);
}

TEST_F(FromEnvironment, TheRightNamesComeBeforeTheMisprintedOnes) {
  const ScopedEnvironment variables{{"VETURBOIO_KEY", base64(kKey)},
                                    {"VETURBOIO_IV", base64(kIv)},
                                    {"VETUROIO_KEY", base64("fedcba9876543210")},
                                    {"VETUROIO_IV", base64("0000000000000000")}};
  expect_key(get(), kKey, kIv);
}

TEST_F(FromEnvironment, AnEmptyVariableIsOneThatIsNotSet) {
  const ScopedEnvironment variables{
      {"VETURBOIO_KEY", ""}, {"VETURBOIO_IV", ""}, {"VETUROIO_KEY", base64(kKey)}, {"VETUROIO_IV", base64(kIv)}};
  expect_key(get(), kKey, kIv);
}

struct Case {
  std::vector<ScopedEnvironment::Variable> variables;
  std::string cause;
};

class Refuses : public FromEnvironment, public ::testing::WithParamInterface<Case> {};

TEST_P(Refuses, AndSaysWhichVariableAndHowLongButNotWhatItIs) {
  const ScopedEnvironment variables(GetParam().variables);
  EXPECT_EQ(error_of(get).message(), GetParam().cause);
}

INSTANTIATE_TEST_SUITE_P(
    Keys, Refuses,
    ::testing::Values(Case{{}, "VETURBOIO_KEY is not set"}, Case{{{"VETURBOIO_KEY", base64(kKey)}}, "VETURBOIO_IV is not set"},
                      Case{{{"VETURBOIO_IV", base64(kIv)}}, "VETURBOIO_KEY is not set"},
                      Case{{{"VETURBOIO_KEY", "not base64"}}, "VETURBOIO_KEY is not base64 (it has 10 characters)"},
                      Case{{{"VETUROIO_KEY", "not base64"}}, "VETUROIO_KEY is not base64 (it has 10 characters)"},
                      Case{{{"VETURBOIO_KEY", base64(kKey)}, {"VETURBOIO_IV", "???"}},
                           "VETURBOIO_IV is not base64 (it has 3 characters)"},
                      Case{{{"VETURBOIO_KEY", base64("short")}, {"VETURBOIO_IV", base64(kIv)}},
                           "VETURBOIO_KEY has 5 bytes: AES-CTR takes 16 or 32"},
                      Case{{{"VETUROIO_KEY", base64(kKey + "12345678")}, {"VETURBOIO_IV", base64(kIv)}},
                           "VETUROIO_KEY has 24 bytes: AES-CTR takes 16 or 32"},
                      Case{{{"VETURBOIO_KEY", base64(kKey)}, {"VETUROIO_IV", base64(kIv + "x")}},
                           "VETUROIO_IV has 17 bytes: AES-CTR takes 16"}));

}  // namespace
}  // namespace veturbo::keys
