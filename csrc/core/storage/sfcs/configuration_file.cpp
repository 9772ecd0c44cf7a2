#include "storage/sfcs/configuration_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "base/readable.h"
#include "storage/sfcs/path.h"
#include "storage/system_calls.h"

// Who lives holds a lock on its folder, and the kernel takes it back from whoever dies. So a folder of ours whose lock is free is
// a dead process's, or one that was made this moment and is not locked yet: its maker looks, once it has the lock, whether the
// folder is still there, and makes another one if it is not.
namespace veturbo::storage::sfcs {

namespace {

constexpr std::string_view kPrefix = "veturboio-sfcs-";

bool is_writable_folder(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored) && ::access(path.c_str(), W_OK | X_OK) == 0;
}

bool is_in_working_directory(const std::string& path) {
  std::error_code code;
  const std::filesystem::path here = std::filesystem::current_path(code);
  const std::filesystem::path there = std::filesystem::canonical(path, code);
  return !code && rest_in(here.string(), there.string());
}

// The working directory is left alone, unless there is nothing outside of it, as when it is the root.
std::string parent_folder() {
  const std::string candidates[] = {"/dev/shm", std::string(environment_variable("TMPDIR")), "/tmp"};
  std::string second_best;
  for (const std::string& candidate : candidates) {
    if (candidate.starts_with('/') && is_writable_folder(candidate)) {
      if (!is_in_working_directory(candidate)) {
        return candidate;
      }
      second_best = second_best.empty() ? candidate : second_best;
    }
  }
  return second_best.empty() ? "/tmp" : second_best;
}

// Not waited for: whoever else holds it either lives or is about to remove the folder.
UniqueFd lock(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  return fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0 ? std::move(fd) : UniqueFd();
}

bool is_still_there(const UniqueFd& fd, const std::string& folder) {
  struct stat opened = {};
  struct stat named = {};
  return ::fstat(fd.get(), &opened) == 0 && ::lstat(folder.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

void remove_folder(const std::string& folder) {
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

// Nothing is said of what cannot be removed: it does not stand in anybody's way.
void remove_stale_folders(const std::string& parent) {
  std::error_code code;
  for (std::filesystem::directory_iterator entry(parent, code), end; !code && entry != end; entry.increment(code)) {
    const std::string folder = entry->path().string();
    struct stat info = {};
    if (entry->path().filename().string().starts_with(kPrefix) && ::lstat(folder.c_str(), &info) == 0 && S_ISDIR(info.st_mode) &&
        info.st_uid == ::geteuid()) {
      if (const UniqueFd held = lock(folder); held && is_still_there(held, folder)) {
        remove_folder(folder);
      }
    }
  }
}

void append_escaped(std::string_view text, const std::string& property, Secret& xml) {
  if (valid_utf8(text) != text) {
    throw Error(ErrorKind::kInvalidArgument, concat("the value of ", property, " is not UTF-8"));
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n' && c != '\r') {
      throw Error(ErrorKind::kInvalidArgument, concat("the value of ", property, " has a control character"));
    }
    // A bare carriage return would be read as a line feed.
    xml.append(c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '\r' ? "&#13;" : text.substr(i, 1));
  }
}

void append_property(const std::string& name, std::string_view value, Secret& xml) {
  xml.append("  <property>\n    <name>");
  append_escaped(name, name, xml);
  xml.append("</name>\n    <value>");
  append_escaped(value, name, xml);
  xml.append("</value>\n  </property>\n");
}

Secret configuration_text(const Settings& settings, const Access& access) {
  Secret xml;
  xml.append("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<configuration>\n");
  for (const auto& [name, value] : settings.properties) {
    append_property(name, value, xml);
  }
  for (const auto& [name, value] : access_properties(settings.fs_name, access)) {
    append_property(name, value.text(), xml);
  }
  xml.append("</configuration>\n");
  return xml;
}

}  // namespace

ConfigurationFile::ConfigurationFile() : process_(::getpid()) {
  const std::string parent = parent_folder();
  remove_stale_folders(parent);
  constexpr int kTries = 16;
  for (int i = 0; i < kTries && !lock_; ++i) {
    std::string folder = concat(parent, '/', kPrefix, "XXXXXX");
    if (::mkdtemp(folder.data()) == nullptr) {
      throw Error::from_errno(errno, concat("cannot create a folder in ", parent));
    }
    UniqueFd held = lock(folder);
    if (held && is_still_there(held, folder)) {
      lock_ = std::move(held);
      folder_ = std::move(folder);
      path_ = folder_ + "/libcloudfs.xml";
    }
  }
  if (!lock_) {
    throw Error::from_errno(EAGAIN, concat("cannot lock a folder in ", parent));
  }
}

ConfigurationFile::~ConfigurationFile() {
  if (::getpid() == process_) {
    remove_folder(folder_);
  }
}

void ConfigurationFile::write(const Settings& settings, const Access& access) {
  const SystemCalls& calls = system_calls();
  const Secret text = configuration_text(settings, access);
  const std::string next = path_ + ".next";
  try {
    constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
    const UniqueFd fd(uninterrupted([&] { return calls.open(next.c_str(), kFlags, 0600); }));
    // What the umask says does not hold here.
    if (!fd || uninterrupted([&] { return calls.fchmod(fd.get(), 0600); }) != 0) {
      throw Error::from_errno(errno, "");
    }
    write_fully(calls, fd.get(), 0, text.bytes());
    if (calls.rename(next.c_str(), path_.c_str()) != 0) {
      throw Error::from_errno(errno, "rename");
    }
  } catch (const Error& error) {
    calls.unlink(next.c_str());
    throw Error(ErrorKind::kIo, concat("cannot write the configuration ", path_, ": ", error.cause()), error.code());
  }
}

}  // namespace veturbo::storage::sfcs
