#pragma once

#include <cstdlib>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace veturbo::testing {

// Sets environment variables for one test, and puts back what they were. Nothing stands for "not set".
class ScopedEnvironment {
 public:
  using Variable = std::pair<std::string, std::optional<std::string>>;

  ScopedEnvironment(std::initializer_list<Variable> variables) : ScopedEnvironment(std::vector(variables)) {}
  explicit ScopedEnvironment(const std::vector<Variable>& variables) {
    for (const auto& [name, value] : variables) {
      const char* const before = std::getenv(name.c_str());
      before_[name] = before == nullptr ? std::nullopt : std::optional<std::string>(before);
      put(name, value);
    }
  }
  ~ScopedEnvironment() {
    for (const auto& [name, value] : before_) {
      put(name, value);
    }
  }
  ScopedEnvironment(const ScopedEnvironment&) = delete;
  ScopedEnvironment& operator=(const ScopedEnvironment&) = delete;

 private:
  static void put(const std::string& name, const std::optional<std::string>& value) {
    if (value) {
      ::setenv(name.c_str(), value->c_str(), 1);
    } else {
      ::unsetenv(name.c_str());
    }
  }

  std::map<std::string, std::optional<std::string>> before_;
};

}  // namespace veturbo::testing
