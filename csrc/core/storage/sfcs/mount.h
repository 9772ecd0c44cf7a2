#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "storage/sfcs/attempts.h"
#include "storage/sfcs/configuration_file.h"
#include "storage/sfcs/connection.h"
#include "storage/sfcs/settings.h"

namespace veturbo::storage::sfcs {

// A mount group as this process is connected to it. All files of the group share it, from the first to the end of the process.
//
// Lent access expires. While there is a user, a thread asks the trusted service for the next one when half of its time has
// passed; what was opened before goes on by the old one, what comes after has a new connection. Without users there is no thread,
// and the next one finds the access as it is.
class Mount {
 public:
  // Whoever has a file open, or is about to.
  class User {
   public:
    // Asks nobody yet.
    User(const std::string& mount_group, Settings settings);
    ~User();
    User(const User&) = delete;
    User& operator=(const User&) = delete;

    // Throws Error(kInvalidArgument) in a process that was forked after this one began.
    Mount* operator->() const;

   private:
    Mount* mount_;
    pid_t process_;
  };

  // Makes a call that names a path: on the present connection, made now if there is none, and again on a new one when it is
  // refused or fails for the moment. Throws Error(kIo), with ENOKEY when the trusted service lends no access, and
  // Error(kCancelled) soon after `stop` was requested while that is asked.
  template <typename Call>
  auto on_connection(Retries& retries, Call&& call, const std::stop_token& stop = {}) {
    Attempts attempts(retries);
    bool renewed = false;
    for (;;) {
      std::shared_ptr<const Connection> connection;
      try {
        connection = this->connection(stop);
        return call(connection);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kIo) {
          throw;
        }
        const bool is_old = is_denied(error.code()) || (is_unreachable(error.code()) && attempts.failures() > 0);
        if (is_old && is_lent_ && !std::exchange(renewed, true) && renew(connection.get(), error, stop)) {
          retries.add(error);
        } else {
          attempts.pause_after(error);
          forget(connection.get());
        }
      }
    }
  }

  // Connects if it can, and waits for access to be lent if it must.
  void prepare(const std::stop_token& stop);

 private:
  friend class Mounts;
  using Clock = std::chrono::steady_clock;

  // An access and, if it is lent, until when: it is renewed at `due` and worth nothing after `end`.
  struct Held {
    Access access;
    Clock::time_point due = Clock::time_point::max();
    Clock::time_point end = Clock::time_point::max();
  };

  Mount(std::string group, Settings settings);

  void add_user();
  void remove_user();
  bool is_used();
  // Disconnects, and leaves nothing but what is open.
  void close();

  std::shared_ptr<const Connection> connection(const std::stop_token& stop);
  // Asks the trusted service anew, unless somebody has since `used` was connected, which was refused. False when it has no
  // answer, and the refusal may pass all the same.
  bool renew(const Connection* used, const Error& refusal, const std::stop_token& stop);
  void forget(const Connection* used);
  Held borrow(const std::stop_token& stop) const;
  void hold(Held held);  // with mutex_ held
  void keep_fresh(const std::stop_token& stop);

  const std::string group_;
  const Settings settings_;
  const bool is_lent_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<ConfigurationFile> configuration_;
  std::optional<Held> held_;
  std::shared_ptr<const Connection> connection_;

  std::mutex users_mutex_;
  int users_ = 0;
  std::jthread refresher_;  // while there are users
};

// Ends all connections of the process that nobody uses, and removes their configurations. For what ends without exit().
void disconnect();

// Connects to where `path`, which is absolute, is, so that who opens a file need not wait for the trusted service. Throws as
// on_connection().
void prepare(std::string_view path, const std::stop_token& stop);

}  // namespace veturbo::storage::sfcs
