#include "keys/http_client.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <thread>

#include "testing/environment.h"
#include "testing/errors.h"
#include "testing/temporary_directory.h"
#include "testing/unix_server.h"

namespace veturbo::keys {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::error_of;
using testing::http_answer;
using testing::TemporaryDirectory;
using testing::UnixServer;

class HttpClient : public ::testing::Test {
 protected:
  HttpRequest request() const { return {.url = "http://localhost/", .unix_socket = socket_, .body = std::nullopt}; }

  // What becomes of the request when this is what the server sends.
  HttpResponse answered_with(const std::string& answer, const HttpLimits& limits = {}) const {
    const UnixServer server(socket_, answer);
    return send(request(), {}, limits);
  }
  std::string failure_of(const std::string& answer, const HttpLimits& limits = {}) {
    return error_of([&] { answered_with(answer, limits); }).message();
  }

  // Short: a socket's path has at most 107 bytes.
  TemporaryDirectory directory_{"/tmp"};
  std::string socket_ = directory_ / "s";
};

TEST_F(HttpClient, GetsAnAnswerOfAnyStatus) {
  for (const int status : {200, 301, 404, 503}) {
    std::filesystem::remove(socket_);
    const HttpResponse response = answered_with(http_answer(status, "the body"));
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(response.body.text(), "the body");
  }
}

TEST_F(HttpClient, SendsWhatItIsGivenAndLittleElse) {
  const UnixServer server(socket_, http_answer(200, ""));
  HttpRequest post = request();
  post.url = "http://localhost/?Action=Encrypt";
  post.body = Secret(std::string_view("{}"));
  post.add_header("Host", "kms.example.com");
  post.add_header("Content-Type", "application/json");
  post.add_header("X-TOS-Path", "/a b/\xC3\xBC");
  send(post, {});
  EXPECT_EQ(server.request(),
            (std::vector<std::string>{"Accept: */*", "Content-Length: 2", "Content-Type: application/json",
                                      "Host: kms.example.com", "POST /?Action=Encrypt HTTP/1.1", "X-TOS-Path: /a b/\xC3\xBC"}));
}

TEST_F(HttpClient, UsesNoProxyForAUnixSocket) {
  const testing::ScopedEnvironment variables{{"http_proxy", "http://127.0.0.1:9"}, {"all_proxy", "http://127.0.0.1:9"}};
  EXPECT_EQ(answered_with(http_answer(200, "direct")).body.text(), "direct");
}

TEST_F(HttpClient, RefusesALineBreakInAHeader) {
  for (const char* const value : {"a\r\nX-Other: b", "a\nb", "\r", "\x7F"}) {
    const Error error = error_of([&] { request().add_header("X-TOS-Path", value); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_EQ(error.message(), "a line break or another control character cannot be sent in the header X-TOS-Path");
  }
}

TEST_F(HttpClient, TakesAnAnswerUpToTheLimitAndNoFurther) {
  const HttpLimits limits{.response_bytes = 100'000};
  EXPECT_EQ(answered_with(http_answer(200, std::string(100'000, 'x')), limits).body.size(), 100'000);
  std::filesystem::remove(socket_);
  EXPECT_EQ(failure_of(http_answer(200, std::string(100'001, 'x')), limits), "the answer is longer than 100000 bytes");
}

TEST_F(HttpClient, TellsWhatIsNotHttp) {
  EXPECT_EQ(failure_of("garbage\r\n\r\n"), "the answer is not HTTP");
}

TEST_F(HttpClient, TellsAnAnswerThatEndsEarly) {
  EXPECT_EQ(failure_of("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), "the connection ended before the answer did");
}

TEST_F(HttpClient, TellsThatNobodyListens) {
  {
    const UnixServer gone(socket_);
  }
  EXPECT_EQ(error_of([&] { send(request(), {}); }).message(), "no connection: Connection refused");
}

TEST_F(HttpClient, TellsThatThereIsNoSocket) {
  EXPECT_EQ(error_of([&] { send(request(), {}); }).message(), "no connection: No such file or directory");
}

TEST_F(HttpClient, GivesUpWhenNoAnswerComesInTime) {
  const UnixServer silent(socket_);
  const HttpLimits limits{.in_all = milliseconds(50)};
  const auto begin = steady_clock::now();
  EXPECT_EQ(error_of([&] { send(request(), {}, limits); }).message(), "no answer in time");
  EXPECT_LT(steady_clock::now() - begin, milliseconds(5000));
}

TEST_F(HttpClient, EndsAtOnceWhenItIsToStop) {
  const UnixServer silent(socket_);
  std::stop_source stop;
  steady_clock::time_point requested;
  std::thread stopper([&] {
    std::this_thread::sleep_for(milliseconds(100));
    requested = steady_clock::now();
    stop.request_stop();
  });
  const Error error = error_of([&] { send(request(), stop.get_token()); });
  const auto ended = steady_clock::now();
  stopper.join();
  EXPECT_EQ(error.kind(), ErrorKind::kCancelled);
  EXPECT_LT(ended - requested, milliseconds(500));
}

TEST_F(HttpClient, DoesNotBeginWhenItIsToStop) {
  const UnixServer server(socket_, http_answer(200, ""));
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(error_of([&] { send(request(), stop.get_token()); }).kind(), ErrorKind::kCancelled);
  EXPECT_EQ(server.connections(), 0);
}

TEST_F(HttpClient, LeavesNoDescriptorOpen) {
  answered_with(http_answer(200, ""));  // libcurl may keep what it opens first
  std::filesystem::remove(socket_);
  const size_t before = testing::open_descriptors();
  {
    const UnixServer server(socket_, http_answer(200, ""));  // may close its end of a connection late, but not after it has ended
    for (int i = 0; i < 10; ++i) {
      send(request(), {});
    }
  }
  EXPECT_EQ(testing::open_descriptors(), before);
}

}  // namespace
}  // namespace veturbo::keys
