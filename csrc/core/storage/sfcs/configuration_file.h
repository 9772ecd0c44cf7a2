#pragma once

#include <sys/types.h>

#include <string>

#include "base/unique_fd.h"
#include "storage/sfcs/settings.h"

namespace veturbo::storage::sfcs {

// The client's configuration, an XML file in Hadoop's form. It holds secrets: mode 0600, in a folder of its own that only this
// user can enter, in memory where the machine has /dev/shm. What a killed process has left there goes when the next one makes its
// own.
class ConfigurationFile {
 public:
  ConfigurationFile();
  ~ConfigurationFile();
  ConfigurationFile(const ConfigurationFile&) = delete;
  ConfigurationFile& operator=(const ConfigurationFile&) = delete;

  // Replaces what is there in one step; one call at a time. Throws Error(kIo), and Error(kInvalidArgument) for a value that XML
  // cannot hold.
  void write(const Settings& settings, const Access& access);
  const std::string& path() const { return path_; }

 private:
  std::string folder_;
  std::string path_;
  UniqueFd lock_;  // of the folder: says that its process lives
  pid_t process_;  // that made the folder, and not a forked child of it, removes it
};

}  // namespace veturbo::storage::sfcs
