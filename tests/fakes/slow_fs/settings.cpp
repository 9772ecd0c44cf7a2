#include "settings.h"

#include <cstdlib>
#include <stdexcept>
#include <string_view>

namespace slow_fs {
namespace {

double to_number(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || number < 0) {
    throw std::invalid_argument("\"" + text + "\" is not a number that can be");
  }
  return number;
}

}  // namespace

Settings parse_settings(int argc, char** argv) {
  if (argc < 3) {
    throw std::invalid_argument("give SOURCE and MOUNTPOINT");
  }
  Settings settings;
  settings.source = argv[1];
  settings.mountpoint = argv[2];
  for (int i = 3; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (name == "log") {
      settings.log = value;
    } else if (name == "delay_ms") {
      settings.delay = std::chrono::duration<double, std::milli>(to_number(value));
    } else if (name == "mb_per_s") {
      settings.bytes_per_second = to_number(value) * 1e6;
    } else if (name == "max_read") {
      settings.max_read = static_cast<unsigned>(to_number(value));
    } else if (name == "max_background") {
      settings.max_background = static_cast<unsigned>(to_number(value));
    } else if (name == "keep_cache") {
      settings.keep_cache = to_number(value) != 0;
    } else if (name == "fail_from") {
      settings.fail_from = static_cast<uint64_t>(to_number(value));
    } else {
      throw std::invalid_argument("nothing is named " + name);
    }
  }
  return settings;
}

}  // namespace slow_fs
