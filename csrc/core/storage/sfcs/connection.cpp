#include "storage/sfcs/connection.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <optional>

#include "base/concat.h"
#include "base/environment.h"

namespace veturbo::storage::sfcs {

namespace {

constexpr const char* kConfigurationVariable = "LIBCLOUDFS_CONF";

// The client finds its configuration by the environment, which it shares with the whole process: set for as long as it connects.
class ConfigurationInEnvironment {
 public:
  explicit ConfigurationInEnvironment(const std::string& path) {
    if (const char* const before = std::getenv(kConfigurationVariable)) {
      before_ = before;
    }
    ::setenv(kConfigurationVariable, path.c_str(), 1);
  }
  ~ConfigurationInEnvironment() {
    if (before_) {
      ::setenv(kConfigurationVariable, before_->c_str(), 1);
    } else {
      ::unsetenv(kConfigurationVariable);
    }
  }
  ConfigurationInEnvironment(const ConfigurationInEnvironment&) = delete;
  ConfigurationInEnvironment& operator=(const ConfigurationInEnvironment&) = delete;

 private:
  std::optional<std::string> before_;
};

// What `connect` wants: texts that end with a NUL. Wiped after use.
Secret with_nul(const Secret& text) {
  Secret result(text.size() + 1);
  std::copy(text.bytes().begin(), text.bytes().end(), result.bytes().begin());
  return result;
}

cfsFS connect(const Library& library, const std::string& configuration, const Access& access) {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  const ConfigurationInEnvironment environment(configuration);
  cfsBuilder* const builder = library.new_builder();
  if (builder == nullptr) {
    throw call_error(library, "cfsNewBuilder");
  }
  const auto fail = [&](const char* function) {
    const Error error = call_error(library, function);
    library.free_builder(builder);
    throw error;
  };
  library.set_name_node(builder, "default");
  // The file has them too; but a client may have read it once and for all.
  if (library.set_credentials != nullptr) {
    const keys::Credentials& as = access.credentials;
    const Secret secret_key = with_nul(as.secret_key);
    const Secret token = with_nul(as.session_token);
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): both end with a NUL
    if (library.set_credentials(builder, as.access_key.c_str(), secret_key.text().data(), token.text().data()) != 0) {
      fail("cfsSetCredentials");
    }
  }
  const cfsFS fs = library.connect(builder, nullptr);
  if (fs == nullptr) {
    fail("cfsBuilderConnect");
  }
  return fs;
}

}  // namespace

Error call_error(const Library& library, const char* function) {
  const int code = errno == 0 ? EIO : errno;  // before anything else may change it
  const char* const text = library.last_error();
  std::string cause = Error::from_errno(code, function).cause();
  if (text != nullptr && *text != '\0') {
    cause += concat(" (", text, ")");
  }
  return Error(ErrorKind::kIo, cause, code);
}

Connection::Connection(const Library& library, const std::string& configuration, const Access& access)
    : library_(library), process_(::getpid()), fs_(connect(library, configuration, access)) {}

Connection::~Connection() {
  if (is_of_this_process()) {
    library_.disconnect(fs_);
  }
}

bool Connection::is_of_this_process() const {
  return process_ == ::getpid();
}

void check_process(pid_t process) {
  if (process != ::getpid()) {
    throw Error(ErrorKind::kInvalidArgument,
                "was opened before this process was forked, which a connection does not survive: open it here");
  }
}

Handle::Handle(Handle&& other) noexcept : connection_(std::move(other.connection_)), file_(std::exchange(other.file_, nullptr)) {}

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    close();
    connection_ = std::move(other.connection_);
    file_ = std::exchange(other.file_, nullptr);
  }
  return *this;
}

int Handle::close() noexcept {
  const cfsFile file = std::exchange(file_, nullptr);
  if (file == nullptr || !connection_->is_of_this_process()) {
    return 0;
  }
  return connection_->library().close_file(connection_->get(), file);
}

}  // namespace veturbo::storage::sfcs
