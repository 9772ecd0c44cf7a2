#include "storage/sfcs/mount.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <utility>
#include <vector>

#include "base/concat.h"
#include "keys/trusted_service.h"

namespace veturbo::storage::sfcs {

namespace {

// A refresh that fails is tried again after so long, as long as the old access is good for something.
constexpr std::chrono::seconds kRefreshInterval(5);

// "Never" expires so late that a clock has no number for it.
constexpr std::chrono::hours kMaxLifetime(24 * 30);

bool same(const std::optional<Access>& a, const std::optional<Access>& b) {
  if (!a || !b) {
    return a.has_value() == b.has_value();
  }
  return a->name_node == b->name_node && a->credentials.access_key == b->credentials.access_key &&
         a->credentials.secret_key.text() == b->credentials.secret_key.text() &&
         a->credentials.session_token.text() == b->credentials.session_token.text();
}

bool same(const Settings& a, const Settings& b) {
  return a.fs_name == b.fs_name && a.properties == b.properties && a.name_node == b.name_node && same(a.access, b.access);
}

Access copy(const Access& access) {
  return {.credentials = {.access_key = access.credentials.access_key,
                          .secret_key = access.credentials.secret_key.clone(),
                          .session_token = access.credentials.session_token.clone()},
          .name_node = access.name_node};
}

}  // namespace

// All mounts of the process. Never destroyed: when the process ends there may be users still.
class Mounts {
 public:
  static Mounts& get() {
    // A forked child has mounts of its own, since neither threads nor connections come along, and leaves its parent's alone.
    static const int registered = [] {
      // NOLINTBEGIN(cppcoreguidelines-owning-memory)
      present() = new Mounts;
      return ::pthread_atfork(nullptr, nullptr, [] { present() = new Mounts; });
      // NOLINTEND(cppcoreguidelines-owning-memory)
    }();
    static_cast<void>(registered);
    return *present();
  }

  static int close_at_exit() {
    return std::atexit([] { get().close(); });
  }

  Mount* join(const std::string& group, Settings settings) {
    std::lock_guard lock(mutex_);
    for (const std::unique_ptr<Mount>& mount : mounts_) {
      if (mount->group_ != group) {
        continue;
      }
      if (same(mount->settings_, settings)) {
        mount->add_user();
        return mount.get();
      }
      if (!mount->is_used()) {
        mount->close();  // the group's settings have changed: files of credentials are written anew
      }
    }
    mounts_.push_back(std::unique_ptr<Mount>(new Mount(group, std::move(settings))));
    mounts_.back()->add_user();
    return mounts_.back().get();
  }

  void close() {
    std::lock_guard lock(mutex_);
    for (const std::unique_ptr<Mount>& mount : mounts_) {
      mount->close();
    }
  }

 private:
  static Mounts*& present() {
    static Mounts* mounts = nullptr;
    return mounts;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Mount>> mounts_;
};

Mount::User::User(const std::string& mount_group, Settings settings)
    : mount_(Mounts::get().join(mount_group, std::move(settings))), process_(::getpid()) {}

Mount::User::~User() {
  if (process_ == ::getpid()) {
    mount_->remove_user();
  }
}

Mount* Mount::User::operator->() const {
  check_process(process_);
  return mount_;
}

Mount::Mount(std::string group, Settings settings)
    : group_(std::move(group)), settings_(std::move(settings)), is_lent_(!settings_.access) {}

void Mount::add_user() {
  std::lock_guard lock(users_mutex_);
  if (users_ == 0 && is_lent_) {
    refresher_ = std::jthread([this](const std::stop_token& stop) { keep_fresh(stop); });
  }
  ++users_;
}

void Mount::remove_user() {
  std::jthread last;  // joined without the lock
  std::lock_guard lock(users_mutex_);
  if (--users_ == 0) {
    last = std::move(refresher_);
    last.request_stop();
  }
}

bool Mount::is_used() {
  std::lock_guard lock(users_mutex_);
  return users_ > 0;
}

void Mount::close() {
  std::jthread last;
  {
    std::lock_guard lock(users_mutex_);
    last = std::move(refresher_);
    last.request_stop();
  }
  // Not at any price: another thread may hang in a call while the process ends.
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (lock) {
    connection_.reset();
    configuration_.reset();
  } else if (last.joinable()) {
    last.detach();  // what it uses lives on
  }
}

std::shared_ptr<const Connection> Mount::connection(const std::stop_token& stop) {
  std::lock_guard lock(mutex_);
  if (!is_lent_ && !held_) {
    hold({.access = copy(*settings_.access)});
  }
  if (!held_ || Clock::now() >= held_->end) {
    hold(borrow(stop));
  }
  if (!connection_) {
    if (!configuration_) {
      configuration_.emplace();
      [[maybe_unused]] static const int registered = Mounts::close_at_exit();
    }
    configuration_->write(settings_, held_->access);
    connection_ = std::make_shared<const Connection>(Library::get(), configuration_->path(), held_->access);
    // Once more: what the client library has registered for the end when it was loaded and used must come after the
    // disconnection.
    [[maybe_unused]] static const int registered = Mounts::close_at_exit();
  }
  return connection_;
}

void Mount::prepare(const std::stop_token& stop) {
  try {
    connection(stop);
  } catch (const Error& error) {
    // What may pass, whoever opens a file tries again, and tells of it.
    if (error.kind() != ErrorKind::kIo || error.code() == ENOKEY) {
      throw;
    }
  }
}

bool Mount::renew(const Connection* used, const Error& refusal, const std::stop_token& stop) {
  std::lock_guard lock(mutex_);
  if (connection_.get() != used) {
    return true;
  }
  try {
    hold(borrow(stop));
    return true;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) {
      throw;
    }
    if (is_transient(refusal.code())) {
      return false;
    }
    throw Error(refusal.kind(), concat(refusal.cause(), "; ", error.cause()), refusal.code());
  }
}

void Mount::forget(const Connection* used) {
  std::lock_guard lock(mutex_);
  if (connection_.get() == used) {
    connection_.reset();
  }
}

Mount::Held Mount::borrow(const std::stop_token& stop) const {
  keys::TrustedService service(keys::TrustedService::Settings::from_environment());
  const Clock::time_point asked = Clock::now();
  try {
    keys::SfcsCredentials lent = service.sfcs_credentials(stop);
    const auto lifetime = std::chrono::milliseconds(std::min<std::chrono::seconds>(lent.lifetime, kMaxLifetime));
    const bool is_known = !settings_.name_node.empty();
    return {.access = {std::move(lent.credentials), is_known ? settings_.name_node : lent.name_node},
            .due = asked + lifetime / 2,
            .end = asked + lifetime};
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) {
      throw;
    }
    throw Error(
        ErrorKind::kIo,
        concat("no access to SFCS: neither SFCS_ACCESS_KEY, SFCS_SECRET_KEY and SFCS_NAMENODE_ENDPOINT_ADDRESS nor files of "
               "credentials give it, and the trusted service: ",
               error.cause()),
        ENOKEY);
  }
}

void Mount::hold(Held held) {
  held_ = std::move(held);
  connection_.reset();
  changed_.notify_all();
}

void Mount::keep_fresh(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const Clock::time_point due = held_ ? held_->due : Clock::time_point::max();
    if (Clock::now() < due) {
      // Without end where nothing is held: the first user asks for it himself.
      const auto is_new = [&] { return held_ && held_->due != due; };
      if (held_) {
        changed_.wait_until(lock, stop, due, is_new);
      } else {
        changed_.wait(lock, stop, is_new);
      }
      continue;
    }
    lock.unlock();
    std::optional<Held> fresh;
    try {
      fresh = borrow(stop);
    } catch (const std::exception&) {
      // Not lost: whoever needs it once the old one has expired asks again, and is told why there is none.
    }
    lock.lock();
    if (fresh) {
      hold(std::move(*fresh));
    } else if (held_ && held_->due == due) {
      held_->due = Clock::now() + kRefreshInterval;
    }
  }
}

void disconnect() {
  Mounts::get().close();
}

void prepare(std::string_view path, const std::stop_token& stop) {
  Location location = locate(path);
  const Mount::User mount(location.mount_group, std::move(location.settings));
  mount->prepare(stop);
}

}  // namespace veturbo::storage::sfcs
