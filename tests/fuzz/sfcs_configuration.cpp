#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "base/unique_fd.h"
#include "require.h"
#include "storage/sfcs/configuration_file.h"
#include "storage/sfcs/settings.h"
#include "targets.h"

namespace veturbo::fuzz {

namespace {

using storage::sfcs::ConfigurationFile;
using storage::sfcs::Location;

std::string until_nul(std::string_view& text) {
  const std::string_view part = text.substr(0, text.find('\0'));
  text.remove_prefix(std::min(part.size() + 1, text.size()));
  return std::string(part);
}

// A file in memory that is read by its path.
class TextFile {
 public:
  TextFile() : fd_(::memfd_create("veturboio-fuzz", MFD_CLOEXEC)), path_("/proc/self/fd/" + std::to_string(fd_.get())) {}
  const std::string& path() const { return path_; }

  void fill(std::string_view text) const {
    require(
        ::ftruncate(fd_.get(), 0) == 0 && ::pwrite(fd_.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()),
        "memory cannot be written");
  }

 private:
  UniqueFd fd_;
  std::string path_;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The texts between `<tag>` and `</tag>`, as a reader of XML has them.
std::vector<std::string> elements(std::string_view xml, const std::string& tag) {
  const std::string open = "<" + tag + ">";
  std::vector<std::string> found;
  while (xml.find(open) != std::string_view::npos) {
    xml.remove_prefix(xml.find(open) + open.size());
    std::string_view escaped = xml.substr(0, xml.find('<'));
    require(xml.substr(escaped.size()).starts_with("</" + tag + ">"), "an element of the configuration has others inside");
    std::string& text = found.emplace_back();
    while (!escaped.empty()) {
      const size_t length = escaped.front() == '&' ? escaped.find(';') + 1 : 1;
      const std::string_view character = escaped.substr(0, length);
      text += character == "&amp;"   ? '&'
              : character == "&lt;"  ? '<'
              : character == "&gt;"  ? '>'
              : character == "&#13;" ? '\r'
                                     : character.at(0);
      escaped.remove_prefix(character.size());
    }
  }
  return found;
}

void require_readable_as_it_is(const storage::sfcs::Settings& settings, const std::string& xml) {
  std::vector<std::string> names;
  std::vector<std::string> values;
  for (const auto& [name, value] : settings.properties) {
    names.push_back(name);
    values.push_back(value);
  }
  require(elements(xml, "name") == names && elements(xml, "value") == values, "the configuration is read as another");
  try {
    nlohmann::json(xml).dump();
  } catch (const nlohmann::json::type_error&) {
    require(false, "the configuration is not UTF-8");
  }
}

}  // namespace

void sfcs_configuration(std::string_view input) {
  static const TextFile kDefaults;
  static ConfigurationFile written;
  const std::string path = until_nul(input);
  kDefaults.fill(until_nul(input));
  ::setenv("SFCS_METAINFO_PATH", kDefaults.path().c_str(), 1);
  ::setenv("SFCS_FSNAME", until_nul(input).c_str(), 1);
  ::setenv("SFCS_NETWORK_SEGMENT", "10.0.0.0/24", 1);
  const auto location = unless_refused([&] { return storage::sfcs::locate(path); });
  for (const char* const name : {"SFCS_METAINFO_PATH", "SFCS_FSNAME", "SFCS_NETWORK_SEGMENT"}) {
    ::unsetenv(name);
  }
  if (!location) {
    return;
  }
  require(location->path.starts_with('/') && (location->path + "/").find("/../") == std::string::npos,
          "a path of SFCS leads out of its folder");
  const auto write = [&] {
    written.write(location->settings, {});
    return text_of(written.path());
  };
  if (const auto xml = unless_refused(write)) {
    require_readable_as_it_is(location->settings, *xml);
  }
}

}  // namespace veturbo::fuzz
