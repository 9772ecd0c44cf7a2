#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "interface.h"

// The builders, connections and open files that callers have. A pointer that is handed out is a number that no memory has as its
// address and that is never given twice: whoever uses one that is closed, or none of ours, is found out.
namespace fake {

// One lock for all that threads share; held across a fork, so that a child finds it free.
std::unique_lock<std::mutex> lock_state();
void on_fork(void (*in_child)());

struct Credentials {
  std::string access_key;
  std::string secret_key;
  std::string token;  // may be empty

  bool operator==(const Credentials&) const = default;
};

struct Builder {
  pid_t process;
  bool default_name_node = false;
  std::optional<Credentials> credentials = {};
  bool consumed = false;
};

struct Connection {
  pid_t process;
  Credentials credentials;
  std::string name_node;
  int64_t block_size;
  int64_t uses = 0;
  int64_t files = 0;
  bool closed = false;
};

struct File {
  std::shared_ptr<Connection> connection;
  std::string path;
  veturbo::UniqueFd fd;
  bool writes;
  int64_t safe_size;  // what is there even if the close fails
  bool in_use = false;
  bool closed = false;
};

// The address of an object, to hand out, and its number, for the log.
template <class Pointer>
Pointer to_pointer(int64_t number) {
  constexpr uint64_t kNowhere = 0xFA4E'0000'0000'0000;
  return number == 0 ? nullptr : reinterpret_cast<Pointer>(kNowhere + static_cast<uint64_t>(number) * 16);
}

int64_t add(Builder builder);
int64_t add(Connection connection);
int64_t add(File file);

// Of the caller, who must have it, in this process, and not have let go of it.
Builder& builder_of(const char* function, cfsBuilder* pointer);

// While it lives the connection may not be closed.
class ConnectionInUse {
 public:
  ConnectionInUse(const char* function, cfsFS pointer);
  ~ConnectionInUse();
  ConnectionInUse(const ConnectionInUse&) = delete;
  ConnectionInUse& operator=(const ConnectionInUse&) = delete;

  Connection* operator->() const { return connection_.get(); }
  Connection& operator*() const { return *connection_; }
  const std::shared_ptr<Connection>& shared() const { return connection_; }

 private:
  std::shared_ptr<Connection> connection_;
};

// While it lives no other thread may use the file.
class FileInUse {
 public:
  FileInUse(const char* function, cfsFS connection, cfsFile pointer);
  ~FileInUse();
  FileInUse(const FileInUse&) = delete;
  FileInUse& operator=(const FileInUse&) = delete;

  File* operator->() const { return file_.get(); }
  void close();

 private:
  ConnectionInUse connection_;
  std::shared_ptr<File> file_;
};

// Nobody may use it, and no file of it be open.
void close_connection(const char* function, cfsFS pointer);

// What cfsGetPathInfo has handed out.
void add_info(cfsFileInfo* info);
void remove_info(const char* function, cfsFileInfo* info);

// "handles=N connections=N builders=N infos=N", of this process.
std::string describe_open_objects();

}  // namespace fake
