#include "base/memory_limit.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>

namespace veturbo {

namespace {

// What version 1 says where there is no limit: the largest number of pages, in bytes. Nobody has half as much memory.
constexpr uint64_t kNoLimit = uint64_t{1} << 62;

struct Group {
  std::string path;           // in the tree of its controller
  std::string_view tree;      // below /sys/fs/cgroup
  std::string_view limit_in;  // the file
};

// A line of /proc/PID/cgroup, "ID:CONTROLLERS:PATH", if it is that of the group that limits memory. See cgroups(7).
std::optional<Group> parse_line(std::string_view line) {
  const size_t first = line.find(':');
  const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
  if (second == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string controllers = "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
  const std::string path(line.substr(second + 1));
  if (controllers.find(",memory,") != std::string::npos) {
    return Group{path, "memory", "memory.limit_in_bytes"};
  }
  if (controllers == ",,") {
    return Group{path, "", "memory.max"};
  }
  return std::nullopt;
}

std::optional<uint64_t> read_number(const std::filesystem::path& file) {
  std::string text;
  std::ifstream(file) >> text;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_limit = error == std::errc() && end == text.data() + text.size() && number < kNoLimit;
  return is_limit ? std::optional(number) : std::nullopt;  // "max" is none
}

}  // namespace

std::optional<uint64_t> memory_limit(const std::filesystem::path& root) {
  std::optional<uint64_t> least;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::optional<Group> group = parse_line(line);
    if (!group) {
      continue;
    }
    const std::filesystem::path tree = root / "sys/fs/cgroup" / group->tree;
    // Each group above has a say as well. In a container the path may be that of the host, of which it sees nothing: the tree
    // then begins at its own group.
    std::filesystem::path path = std::filesystem::path(group->path).relative_path();
    while (true) {
      if (const std::optional<uint64_t> limit = read_number(tree / path / group->limit_in)) {
        least = std::min(least.value_or(*limit), *limit);
      }
      if (path.empty()) {
        break;
      }
      path = path.parent_path();
    }
  }
  return least;
}

}  // namespace veturbo
