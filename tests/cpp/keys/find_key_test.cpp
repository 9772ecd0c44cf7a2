#include "keys/find_key.h"

#include <gtest/gtest.h>

#include <vector>

#include "testing/environment.h"
#include "testing/errors.h"

namespace veturbo::keys {
namespace {

using testing::error_of;

// Has a key, or the reason why not.
class FakeProvider final : public KeyProvider {
 public:
  FakeProvider(std::string name, std::optional<Error> error) : name_(std::move(name)), error_(std::move(error)) {}

  std::string_view name() const override { return name_; }
  crypto::DataKey get(const KeyRequest& request, std::stop_token) override {
    asked.push_back(request.path);
    if (error_) {
      throw Error(*error_);
    }
    return crypto::make_data_key(Secret(std::string_view("0123456789abcdef")), crypto::Iv{}, "key", "iv");
  }

  std::vector<std::string> asked;

 private:
  std::string name_;
  std::optional<Error> error_;
};

Error no_key(const std::string& reason) {
  return Error(ErrorKind::kNoKey, reason);
}

FoundKey ask(FakeProvider& first, FakeProvider& second, FakeProvider& third, const std::stop_token& stop = {}) {
  KeyProvider* const providers[] = {&first, &second, &third};
  return first_key(providers, {.path = "/model", .header = std::nullopt}, stop);
}

TEST(FindKey, AsksNobodyAfterTheFirstWhoHasIt) {
  FakeProvider first("first", no_key("lost it"));
  FakeProvider second("second", std::nullopt);
  FakeProvider third("third", std::nullopt);
  const FoundKey found = ask(first, second, third);
  EXPECT_EQ(found.source, "second");
  EXPECT_EQ(found.key.key.text(), "0123456789abcdef");
  EXPECT_EQ(first.asked, std::vector<std::string>{"/model"});
  EXPECT_EQ(second.asked, std::vector<std::string>{"/model"});
  EXPECT_TRUE(third.asked.empty());
}

TEST(FindKey, ListsEverybodysReason) {
  FakeProvider first("first", no_key("lost it"));
  FakeProvider second("second", Error(ErrorKind::kInvalidArgument, "cannot say"));
  FakeProvider third("third", Error::from_errno(ENOENT, "open"));
  const Error error = error_of([&] { ask(first, second, third); });
  EXPECT_EQ(error.kind(), ErrorKind::kNoKey);
  EXPECT_EQ(error.message(), "nobody has the key: first: lost it; second: cannot say; third: open: No such file or directory");
}

TEST(FindKey, WhoIsCancelledIsTheLastToBeAsked) {
  FakeProvider first("first", Error(ErrorKind::kCancelled, "cancelled"));
  FakeProvider second("second", std::nullopt);
  FakeProvider third("third", std::nullopt);
  EXPECT_EQ(error_of([&] { ask(first, second, third); }).kind(), ErrorKind::kCancelled);
  EXPECT_TRUE(second.asked.empty());
}

TEST(FindKey, NobodyIsAskedAfterAStop) {
  FakeProvider first("first", std::nullopt);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(error_of([&] { ask(first, first, first, stop.get_token()); }).kind(), ErrorKind::kCancelled);
  EXPECT_TRUE(first.asked.empty());
}

class WithoutAnySource : public ::testing::Test {
  const testing::ScopedEnvironment nothing_{{"DATAPIPE_SOCKET_PATH", "/nowhere/socket"},
                                            {"VETURBOIO_KEY", {}},
                                            {"VETURBOIO_IV", {}},
                                            {"VETUROIO_KEY", {}},
                                            {"VETUROIO_IV", {}},
                                            {"VETURBOIO_KMS_KEYRING_NAME", "ring"},
                                            {"VETURBOIO_KMS_KEY_NAME", "key"},
                                            {"VETURBOIO_KMS_ACCESS_KEY", {}},
                                            {"VETURBOIO_KMS_SECRET_KEY", {}}};
};

TEST_F(WithoutAnySource, AFileWithoutAHeaderHasNoKey) {
  EXPECT_EQ(error_of([] { find_key({.path = "/model", .header = std::nullopt}, {}); }).message(),
            "nobody has the key: the KMS: the file has no header with a wrapped key; "
            "the trusted service: socket /nowhere/socket: No such file or directory; "
            "the environment: VETURBOIO_KEY is not set");
}

TEST_F(WithoutAnySource, AFileWithAHeaderHasNoKey) {
  EXPECT_EQ(error_of([] { find_key({.path = "/model", .header = format::CipherHeader{}}, {}); }).message(),
            "nobody has the key: the KMS: nobody has credentials for it "
            "(the trusted service: socket /nowhere/socket: No such file or directory; "
            "the environment: VETURBOIO_KMS_ACCESS_KEY is not set); "
            "the trusted service: socket /nowhere/socket: No such file or directory; "
            "the environment: VETURBOIO_KEY is not set");
}

TEST_F(WithoutAnySource, NoKeyIsWrapped) {
  const testing::ScopedEnvironment variables{{"VETURBOIO_KMS_ACCESS_KEY", "AK"}};
  EXPECT_EQ(error_of([] { make_wrapped_key(format::CipherMode::kCtr128, {}); }).message(),
            "the new data key was not wrapped: the KMS: nobody has credentials for it "
            "(the trusted service: socket /nowhere/socket: No such file or directory; "
            "the environment: VETURBOIO_KMS_SECRET_KEY is not set)");
}

TEST_F(WithoutAnySource, ASettingThatIsNoNumberIsToldAtOnce) {
  const testing::ScopedEnvironment variables{{"VETURBOIO_DATAPIPE_RETRY", "many"}};
  const Error error = error_of([] { find_key({.path = "/model", .header = std::nullopt}, {}); });
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(error.message(), "VETURBOIO_DATAPIPE_RETRY=many: give a whole number from 0 to 1000000");
}

}  // namespace
}  // namespace veturbo::keys
