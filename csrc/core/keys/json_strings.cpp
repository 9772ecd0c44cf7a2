#include "keys/json_strings.h"

#include <openssl/crypto.h>

#include <cstddef>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/concat.h"
#include "base/error.h"

namespace veturbo::keys {

namespace {

constexpr size_t kMaxDepth = 4;

// Notes each string under the names of the objects around it, and wipes the parser's own copy.
class StringReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit StringReader(std::map<std::string, Secret, std::less<>>& strings) : strings_(strings) {}

  bool null() override { return inside(); }
  bool boolean(bool) override { return inside(); }
  bool number_integer(int64_t) override { return inside(); }
  bool number_unsigned(uint64_t) override { return inside(); }
  bool number_float(double, const std::string&) override { return inside(); }
  bool binary(nlohmann::json::binary_t&) override { return inside(); }

  bool string(std::string& text) override {
    if (arrays_ == 0 && !names_.empty() && depth_ == names_.size()) {
      std::string path;
      for (const std::string& name : names_) {
        path += (path.empty() ? "" : "/") + name;
      }
      strings_.try_emplace(std::move(path), Secret(std::string_view(text)));
    }
    OPENSSL_cleanse(text.data(), text.size());
    return inside();
  }

  bool start_object(size_t) override {
    ++depth_;
    if (depth_ <= kMaxDepth && arrays_ == 0) {
      names_.emplace_back();
    }
    return true;
  }
  bool key(std::string& text) override {
    if (depth_ == names_.size() && arrays_ == 0) {
      names_.back() = text;
    }
    return true;
  }
  bool end_object() override {
    if (depth_ == names_.size() && arrays_ == 0) {
      names_.pop_back();
    }
    --depth_;
    return true;
  }
  bool start_array(size_t) override {
    ++arrays_;
    return inside();
  }
  bool end_array() override {
    --arrays_;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override { return false; }

 private:
  // The answer is an object, so everything else is inside one.
  bool inside() const { return depth_ > 0; }

  std::map<std::string, Secret, std::less<>>& strings_;
  std::vector<std::string> names_;  // the key under which we are, an object each
  size_t depth_ = 0;                // of objects
  size_t arrays_ = 0;
};

}  // namespace

JsonStrings JsonStrings::parse(std::string_view json) {
  JsonStrings result;
  StringReader reader(result.strings_);
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) {
    throw Error(ErrorKind::kNoKey, "the answer is not a JSON object");
  }
  return result;
}

Secret JsonStrings::take(std::string_view path) {
  Secret value = take_if_any(path);
  if (value.empty()) {
    throw Error(ErrorKind::kNoKey, concat("the answer has no ", path));
  }
  return value;
}

Secret JsonStrings::take_if_any(std::string_view path) {
  const auto found = strings_.find(path);
  return found == strings_.end() ? Secret() : std::move(found->second);
}

}  // namespace veturbo::keys
