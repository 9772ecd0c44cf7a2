#include "keys/trusted_service.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "testing/environment.h"
#include "testing/errors.h"
#include "testing/temporary_directory.h"
#include "testing/unix_server.h"

namespace veturbo::keys {
namespace {

using std::chrono::milliseconds;
using testing::error_of;
using testing::http_answer;
using testing::ScopedEnvironment;
using testing::TemporaryDirectory;
using testing::UnixServer;

using Settings = TrustedService::Settings;

class TrustedServiceTest : public ::testing::Test {
 protected:
  TrustedService service(int retries = 0) const {
    return TrustedService({.socket = socket_, .pod = "pod-1", .retries = retries, .interval = milliseconds(1)});
  }
  // What the service gives as its data key when this is the body of its answer.
  std::string failure_of(const std::string& body) {
    const UnixServer server(socket_, http_answer(200, body));
    const std::string message = error_of([this] { service().data_key("/model", {}); }).message();
    std::filesystem::remove(socket_);
    return message;
  }

  // An answer to sfcs-sts in which all is well, but for what the test changes.
  static std::string sfcs_answer(const std::map<std::string, std::string>& changes = {}) {
    std::map<std::string, std::string> values{{"CurrentTime", "2024-05-06T07:08:09+08:00"},
                                              {"ExpiredTime", "2024-05-06T08:08:09+08:00"},
                                              {"AccessKeyId", "an access key"},
                                              {"SecretAccessKey", "a secret key"},
                                              {"SessionToken", "a token"},
                                              {"SfcsNameNodeAddress", "10.0.0.1:65212"}};
    for (const auto& [name, value] : changes) {
      values[name] = value;
    }
    std::string fields;
    for (const char* const name : {"CurrentTime", "ExpiredTime", "AccessKeyId", "SecretAccessKey", "SessionToken"}) {
      fields += (fields.empty() ? "\"" : ", \"") + std::string(name) + "\": \"" + values[name] + "\"";
    }
    return "{\"Cred\": {" + fields + "}, \"SfcsNameNodeAddress\": \"" + values["SfcsNameNodeAddress"] + "\"}";
  }
  std::string sfcs_failure_of(const std::map<std::string, std::string>& changes) {
    const UnixServer server(socket_, http_answer(200, sfcs_answer(changes)));
    const std::string message = error_of([this] { service().sfcs_credentials({}); }).message();
    std::filesystem::remove(socket_);
    return message;
  }

  TemporaryDirectory directory_{"/tmp"};
  std::string socket_ = directory_ / "s";

 private:
  const ScopedEnvironment nothing_{{"DATAPIPE_SOCKET_PATH", {}},
                                   {"POD_NAME", {}},
                                   {"VETURBOIO_DATAPIPE_RETRY", {}},
                                   {"VETURBOIO_DATAPIPE_RETRY_INTERVAL", {}}};
};

TEST_F(TrustedServiceTest, HasDefaults) {
  const Settings settings = Settings::from_environment();
  EXPECT_EQ(settings.socket, "/finetuned-model/datapipe.sock");
  EXPECT_EQ(settings.pod, "");
  EXPECT_EQ(settings.retries, 60);
  EXPECT_EQ(settings.interval, milliseconds(2000));
}

TEST_F(TrustedServiceTest, IsSetUpByTheEnvironment) {
  const ScopedEnvironment variables{{"DATAPIPE_SOCKET_PATH", "/s"},
                                    {"POD_NAME", "pod-1"},
                                    {"VETURBOIO_DATAPIPE_RETRY", "0"},
                                    {"VETURBOIO_DATAPIPE_RETRY_INTERVAL", "0.25"}};
  const Settings settings = Settings::from_environment();
  EXPECT_EQ(settings.socket, "/s");
  EXPECT_EQ(settings.pod, "pod-1");
  EXPECT_EQ(settings.retries, 0);
  EXPECT_EQ(settings.interval, milliseconds(250));
}

TEST_F(TrustedServiceTest, RefusesNumbersThatAreNone) {
  for (const std::string text : {"x", "1x", "-1", "1.5", " 1", "99999999999"}) {
    const ScopedEnvironment variables{{"VETURBOIO_DATAPIPE_RETRY", text}};
    EXPECT_EQ(error_of(Settings::from_environment).message(),
              "VETURBOIO_DATAPIPE_RETRY=" + text + ": give a whole number from 0 to 1000000");
  }
  for (const std::string text : {"x", "2s", "-0.1", "nan", "inf", "3601"}) {
    const ScopedEnvironment variables{{"VETURBOIO_DATAPIPE_RETRY_INTERVAL", text}};
    EXPECT_EQ(error_of(Settings::from_environment).message(),
              "VETURBOIO_DATAPIPE_RETRY_INTERVAL=" + text + ": give seconds from 0 to 3600");
  }
}

TEST_F(TrustedServiceTest, AsksForTheKeyOfAFileInTheNameOfItsPod) {
  const UnixServer server(socket_, http_answer(200, R"({"Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "IV": "ZmVkY2JhOTg3NjU0MzIxMA=="})"));
  const crypto::DataKey key = service().data_key("/a model", {});
  EXPECT_EQ(key.key.text(), "0123456789abcdef");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(key.iv.data()), key.iv.size()), "fedcba9876543210");
  EXPECT_EQ(server.request(),
            (std::vector<std::string>{"Accept: */*", "GET / HTTP/1.1", "Host: localhost", "X-Datapipe-Task-Type: encrypt-key",
                                      "X-Encrypt-Caller-Pod: pod-1", "X-TOS-Path: /a model"}));
}

TEST_F(TrustedServiceTest, TellsWhatIsWrongWithAnAnswerAndNotWhatIsInIt) {
  EXPECT_EQ(failure_of("secret"), "the answer is not a JSON object");
  EXPECT_EQ(failure_of(R"({"IV": "ZmVkY2JhOTg3NjU0MzIxMA=="})"), "the answer has no Key");
  EXPECT_EQ(failure_of(R"({"Key": "secret!", "IV": "ZmVkY2JhOTg3NjU0MzIxMA=="})"), "the answer's Key is not base64");
  EXPECT_EQ(failure_of(R"({"Key": "c2VjcmV0", "IV": "ZmVkY2JhOTg3NjU0MzIxMA=="})"),
            "the answer's Key has 6 bytes: AES-CTR takes 16 or 32");
  EXPECT_EQ(failure_of(R"({"Key": "MDEyMzQ1Njc4OWFiY2RlZg=="})"), "the answer has no IV");
  EXPECT_EQ(failure_of(R"({"Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "IV": "c2VjcmV0"})"),
            "the answer's IV has 6 bytes: AES-CTR takes 16");
}

TEST_F(TrustedServiceTest, LendsCredentialsForSfcs) {
  const UnixServer server(socket_, http_answer(200, sfcs_answer()));
  const SfcsCredentials lent = service().sfcs_credentials({});
  EXPECT_EQ(lent.credentials.access_key, "an access key");
  EXPECT_EQ(lent.credentials.secret_key.text(), "a secret key");
  EXPECT_EQ(lent.credentials.session_token.text(), "a token");
  EXPECT_EQ(lent.name_node, "10.0.0.1:65212");
  EXPECT_EQ(lent.lifetime, std::chrono::seconds(3600));
  EXPECT_EQ(server.request(),
            (std::vector<std::string>{"Accept: */*", "GET / HTTP/1.1", "Host: localhost", "X-Datapipe-Task-Type: sfcs-sts"}));
}

TEST_F(TrustedServiceTest, CountsTheLifeOfItsCredentialsByItsOwnClock) {
  const UnixServer server(
      socket_,
      http_answer(200, sfcs_answer({{"CurrentTime", "1999-12-31T23:59:58.75Z"}, {"ExpiredTime", "2000-01-01T08:00:00+08:00"}})));
  EXPECT_EQ(service().sfcs_credentials({}).lifetime, std::chrono::seconds(2));
}

TEST_F(TrustedServiceTest, TellsWhatTheCredentialsForSfcsLack) {
  for (const std::string name : {"CurrentTime", "ExpiredTime", "AccessKeyId", "SecretAccessKey", "SessionToken"}) {
    EXPECT_EQ(sfcs_failure_of({{name, ""}}), "the answer has no Cred/" + name);
  }
  EXPECT_EQ(sfcs_failure_of({{"SfcsNameNodeAddress", ""}}), "the answer has no SfcsNameNodeAddress");
  EXPECT_EQ(sfcs_failure_of({{"CurrentTime", "noon"}}), "the answer's Cred/CurrentTime is not a time");
  EXPECT_EQ(sfcs_failure_of({{"ExpiredTime", "1709251199"}}), "the answer's Cred/ExpiredTime is not a time");
  for (const std::string time : {"2024-05-06T07:08:09+08:00", "2024-05-06T07:08:08+08:00"}) {
    EXPECT_EQ(sfcs_failure_of({{"ExpiredTime", time}}), "the answer's Cred/ExpiredTime is not after its Cred/CurrentTime");
  }
}

TEST_F(TrustedServiceTest, PingsUntilItIsPong) {
  {
    const UnixServer server(socket_, http_answer(200, R"({"message": "pong"})"));
    service().ping({});
  }
  std::filesystem::remove(socket_);
  const UnixServer server(socket_, http_answer(200, R"({"message": "bang"})"));
  EXPECT_EQ(error_of([this] { service().ping({}); }).message(), "the answer to a ping is not pong");
}

TEST_F(TrustedServiceTest, AsksAgainAsOftenAsItIsTold) {
  const UnixServer server(socket_, http_answer(404, ""));
  TrustedService asked = service(3);
  EXPECT_EQ(error_of([&] { asked.ping({}); }).message(), "the answer has status 404 (4 attempts)");
  EXPECT_EQ(server.connections(), 4);
  EXPECT_TRUE(asked.is_there());
}

TEST_F(TrustedServiceTest, IsNotThereWithoutASocket) {
  EXPECT_FALSE(service().is_there());
  EXPECT_EQ(error_of([this] { service(1000).ping({}); }).message(), "socket " + socket_ + ": No such file or directory");
}

TEST_F(TrustedServiceTest, IsNotThereUnderAPathThatIsTooLongForASocket) {
  socket_ += std::string(107 - socket_.size(), 's');
  testing::write_text(socket_, "");
  EXPECT_TRUE(service().is_there());
  socket_ += 's';
  testing::write_text(socket_, "");
  EXPECT_FALSE(service().is_there());
  EXPECT_EQ(error_of([this] { service(1000).ping({}); }).message(),
            "socket " + socket_ + ": a socket's path has at most 107 bytes");
}

TEST_F(TrustedServiceTest, ThatIsDeadIsWaitedForOnce) {
  {
    const UnixServer dead(socket_);
  }
  TrustedService asked = service(2);
  EXPECT_TRUE(asked.is_there());
  const std::string reason = "no connection: Connection refused (3 attempts)";
  EXPECT_EQ(error_of([&] { asked.kms_credentials({}); }).message(), reason);
  EXPECT_FALSE(asked.is_there());
  EXPECT_EQ(error_of([&] { asked.data_key("/model", {}); }).message(), reason);
}

}  // namespace
}  // namespace veturbo::keys
