#include "objects.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <vector>

#include "failure.h"
#include "locks.h"

namespace fake {
namespace {

// Never destroyed: callers may come until the process ends.
struct State {
  std::mutex mutex;
  std::vector<void (*)()> in_child;
  int64_t last_number = 0;
  std::map<const void*, Builder> builders;
  std::map<const void*, std::shared_ptr<Connection>> connections;
  std::map<const void*, std::shared_ptr<File>> files;
  std::map<const void*, pid_t> infos;
};

State& state() {
  static State* const state = new State;
  return *state;
}

void let_child_go() {
  // A lock on a file lasts as long as any process has its descriptor, and a child must not keep it from being freed.
  for (auto& [pointer, file] : state().files) {
    file->fd.reset();
  }
  for (void (*const function)() : state().in_child) {
    function();
  }
  state().mutex.unlock();
}

[[gnu::constructor]] void watch_forks() {
  ::pthread_atfork([] { state().mutex.lock(); }, [] { state().mutex.unlock(); }, let_child_go);
}

void check_process(const char* function, pid_t process) {
  if (process != ::getpid()) {
    violation(std::string(function) + " with what another process made, before it forked this one");
  }
}

std::shared_ptr<Connection> connection_of(const char* function, cfsFS pointer) {
  const auto found = state().connections.find(pointer);
  if (found == state().connections.end()) {
    violation(std::string(function) + " with an unknown connection");
  }
  check_process(function, found->second->process);
  if (found->second->closed) {
    violation(std::string(function) + " with a closed connection");
  }
  return found->second;
}

}  // namespace

std::unique_lock<std::mutex> lock_state() {
  return std::unique_lock(state().mutex);
}

void on_fork(void (*in_child)()) {
  const auto lock = lock_state();
  state().in_child.push_back(in_child);
}

int64_t add(Builder builder) {
  const auto lock = lock_state();
  state().builders.emplace(to_pointer<cfsBuilder*>(++state().last_number), std::move(builder));
  return state().last_number;
}

int64_t add(Connection connection) {
  const auto lock = lock_state();
  state().connections.emplace(to_pointer<cfsFS>(++state().last_number), std::make_shared<Connection>(std::move(connection)));
  return state().last_number;
}

int64_t add(File file) {
  const auto lock = lock_state();
  ++file.connection->files;
  state().files.emplace(to_pointer<cfsFile>(++state().last_number), std::make_shared<File>(std::move(file)));
  return state().last_number;
}

Builder& builder_of(const char* function, cfsBuilder* pointer) {
  const auto lock = lock_state();
  const auto found = state().builders.find(pointer);
  if (found == state().builders.end()) {
    violation(std::string(function) + " with an unknown builder");
  }
  check_process(function, found->second.process);
  if (found->second.consumed) {
    violation(std::string(function) + " with a builder that is consumed or freed");
  }
  return found->second;
}

ConnectionInUse::ConnectionInUse(const char* function, cfsFS pointer) {
  const auto lock = lock_state();
  connection_ = connection_of(function, pointer);
  ++connection_->uses;
}

ConnectionInUse::~ConnectionInUse() {
  const auto lock = lock_state();
  --connection_->uses;
}

FileInUse::FileInUse(const char* function, cfsFS connection, cfsFile pointer) : connection_(function, connection) {
  const auto lock = lock_state();
  const auto found = state().files.find(pointer);
  if (found == state().files.end()) {
    violation(std::string(function) + " with an unknown handle");
  }
  file_ = found->second;
  if (file_->closed) {
    violation(std::string(function) + " with a closed handle, of " + file_->path);
  }
  if (file_->connection != connection_.shared()) {
    violation(std::string(function) + " with a handle of another connection, of " + file_->path);
  }
  if (file_->in_use) {
    violation(std::string(function) + " with a handle that another thread is using, of " + file_->path);
  }
  file_->in_use = true;
}

FileInUse::~FileInUse() {
  const auto lock = lock_state();
  file_->in_use = false;
}

void FileInUse::close() {
  const auto lock = lock_state();
  LockedFile::unlock(file_->fd);
  file_->fd.reset();
  file_->closed = true;
  --file_->connection->files;
}

void close_connection(const char* function, cfsFS pointer) {
  const auto lock = lock_state();
  const std::shared_ptr<Connection> connection = connection_of(function, pointer);
  if (connection->files > 0) {
    violation(std::string(function) + " while " + std::to_string(connection->files) + " handles of the connection are open");
  }
  if (connection->uses > 0) {
    violation(std::string(function) + " while another thread is using the connection");
  }
  connection->closed = true;
}

void add_info(cfsFileInfo* info) {
  const auto lock = lock_state();
  state().infos.emplace(info, ::getpid());
}

void remove_info(const char* function, cfsFileInfo* info) {
  const auto lock = lock_state();
  if (state().infos.erase(info) == 0) {
    violation(std::string(function) + " with unknown file information");
  }
}

std::string describe_open_objects() {
  const pid_t self = ::getpid();
  const auto files = std::ranges::count_if(
      state().files, [self](const auto& file) { return !file.second->closed && file.second->connection->process == self; });
  const auto connections = std::ranges::count_if(state().connections, [self](const auto& connection) {
    return !connection.second->closed && connection.second->process == self;
  });
  const auto builders = std::ranges::count_if(
      state().builders, [self](const auto& builder) { return !builder.second.consumed && builder.second.process == self; });
  const auto infos = std::ranges::count_if(state().infos, [self](const auto& info) { return info.second == self; });
  return "handles=" + std::to_string(files) + " connections=" + std::to_string(connections) +
         " builders=" + std::to_string(builders) + " infos=" + std::to_string(infos);
}

}  // namespace fake
