#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace veturbo::testing {

// Listens on a unix socket. Each connection is sent `answer` as it is, and closed, when its request's head has been read; without
// an answer connections are made, by the kernel, and nothing ever happens on them.
class UnixServer {
 public:
  explicit UnixServer(const std::string& path, std::string answer = "") : answer_(std::move(answer)) {
    listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(listener_.get(), 16) != 0) {
      std::abort();
    }
    if (!answer_.empty()) {
      thread_ = std::thread([this] { serve(); });
    }
  }
  ~UnixServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  UnixServer(const UnixServer&) = delete;
  UnixServer& operator=(const UnixServer&) = delete;

  // The lines of the last connection's request, sorted.
  std::vector<std::string> request() const {
    std::lock_guard lock(mutex_);
    std::vector<std::string> lines;
    size_t begin = 0;
    for (size_t end; (end = request_.find("\r\n", begin)) != std::string::npos && end > begin; begin = end + 2) {
      lines.push_back(request_.substr(begin, end - begin));
    }
    std::sort(lines.begin(), lines.end());
    return lines;
  }
  int connections() const { return connections_; }

 private:
  void serve() {
    for (;;) {
      const UniqueFd connection(::accept(listener_.get(), nullptr, nullptr));
      if (!connection) {
        return;
      }
      ++connections_;
      std::string request;
      char bytes[4096];
      ssize_t count = 1;
      while (count > 0 && request.find("\r\n\r\n") == std::string::npos) {
        count = ::recv(connection.get(), bytes, sizeof(bytes), 0);
        request.append(bytes, static_cast<size_t>(std::max<ssize_t>(count, 0)));
      }
      {
        std::lock_guard lock(mutex_);
        request_ = std::move(request);
      }
      size_t sent = 0;
      while (sent < answer_.size() && count > 0) {
        count = ::send(connection.get(), answer_.data() + sent, answer_.size() - sent, MSG_NOSIGNAL);
        sent += static_cast<size_t>(std::max<ssize_t>(count, 0));
      }
    }
  }

  std::string answer_;
  mutable std::mutex mutex_;
  std::string request_;
  std::atomic<int> connections_ = 0;
  UniqueFd listener_;
  std::thread thread_;
};

inline std::string http_answer(int status, const std::string& body) {
  return "HTTP/1.1 " + std::to_string(status) + " x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace veturbo::testing
