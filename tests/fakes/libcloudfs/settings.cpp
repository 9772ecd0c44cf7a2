#include "settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <sstream>

#include "failure.h"

namespace fake {
namespace {

// Those that can fail.
constexpr std::array kFunctions = {
    "cfsNewBuilder", "cfsSetCredentials", "cfsBuilderConnect",  "cfsDisconnect",
    "cfsOpenFile",   "cfsOpenFileAcc",    "cfsCloseFile",       "cfsPread",
    "cfsWrite",      "cfsHSync",          "cfsGetPathInfo",     "cfsDelete",
    "cfsRename2",    "cfsConcat",         "cfsCreateDirectory", "cfsGetDefaultBlockSize",
};

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    parts.push_back(part);
  }
  return parts;
}

int64_t number_of(const char* name, const std::string& text, int64_t least) {
  const std::optional<int64_t> value = to_number(text, least);
  if (!value) {
    violation(std::string(name) + "=" + text + " is not a number from " + std::to_string(least) + " on");
  }
  return *value;
}

double positive_of(const char* name, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (*end != '\0' || !(value > 0)) {
    violation(std::string(name) + "=" + text + " is not a number above 0");
  }
  return value;
}

[[noreturn]] void not_a_fault(const std::string& text) {
  violation("FAKE_CLOUDFS_FAIL has " + text + ", which is not FUNCTION:WHICH:ERRNO[:after]");
}

Fault to_fault(const std::string& text) {
  const std::vector<std::string> parts = split(text, ':');
  const bool shaped = parts.size() == 3 || (parts.size() == 4 && parts[3] == "after");
  if (!shaped || std::find(kFunctions.begin(), kFunctions.end(), parts[0]) == kFunctions.end() || errno_number(parts[2]) == 0) {
    not_a_fault(text);
  }
  Fault fault{parts[0], 1, std::numeric_limits<int64_t>::max(), errno_number(parts[2]), parts.size() == 4};
  if (std::string which = parts[1]; which.ends_with('%')) {
    fault.probability = positive_of("FAKE_CLOUDFS_FAIL", which.substr(0, which.size() - 1)) / 100;
  } else if (which != "*") {
    const bool later_too = which.ends_with('+');
    if (later_too) {
      which.pop_back();
    }
    const std::optional<int64_t> number = to_number(which, 1);
    if (!number) {
      not_a_fault(text);
    }
    fault.first = *number;
    fault.last = later_too ? fault.last : fault.first;
  }
  return fault;
}

Settings read() {
  Settings settings;
  settings.root = variable("FAKE_CLOUDFS_ROOT");
  settings.log = variable("FAKE_CLOUDFS_LOG");
  if (const std::string text = variable("FAKE_CLOUDFS_BLOCK_SIZE"); !text.empty()) {
    settings.block_size = number_of("FAKE_CLOUDFS_BLOCK_SIZE", text, 1);
  }
  if (const std::string text = variable("FAKE_CLOUDFS_SHORT"); !text.empty()) {
    settings.short_seed = number_of("FAKE_CLOUDFS_SHORT", text, 0);
  }
  if (const std::string text = variable("FAKE_CLOUDFS_DELAY_MS"); !text.empty()) {
    settings.delay = std::chrono::duration<double, std::milli>(positive_of("FAKE_CLOUDFS_DELAY_MS", text));
  }
  if (const std::string text = variable("FAKE_CLOUDFS_MIB_PER_S"); !text.empty()) {
    settings.bytes_per_second = positive_of("FAKE_CLOUDFS_MIB_PER_S", text) * (1 << 20);
  }
  if (const std::string text = variable("FAKE_CLOUDFS_SEED"); !text.empty()) {
    settings.fault_seed = static_cast<uint64_t>(number_of("FAKE_CLOUDFS_SEED", text, 0));
  }
  for (const std::string& text : split(variable("FAKE_CLOUDFS_FAIL"), ';')) {
    settings.faults.push_back(to_fault(text));
  }
  return settings;
}

[[gnu::constructor]] void read_when_loaded() {
  settings();
}

}  // namespace

const Settings& settings() {
  static const Settings* const settings = new Settings(read());  // never destroyed: calls may come until the process ends
  return *settings;
}

std::optional<int64_t> to_number(const std::string& text, int64_t least) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least) {
    return std::nullopt;
  }
  return value;
}

}  // namespace fake
