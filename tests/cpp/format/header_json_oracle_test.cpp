// Our parser against nlohmann's: of thousands of headers, most of them broken in some way, both take the same ones and find the
// same in them.
//
// nlohmann's parser tells what it reads event by event, from which a tree is made here that keeps repeated keys and how numbers
// are written. What a header means is then a walk over the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "format/header_json.h"

namespace veturbo::format {
namespace {

using namespace std::string_literals;

struct Value {
  enum class Kind { kOther, kNatural, kString, kArray, kObject };
  Kind kind = Kind::kOther;
  uint64_t natural = 0;
  std::string text = {};
  std::vector<std::pair<std::string, Value>> members = {};  // of an array too, without names
};

class TreeBuilder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Value root;
  bool is_out_of_range = false;  // a number that is valid JSON and too large for a double

  bool null() override { return add({}); }
  bool boolean(bool) override { return add({}); }
  bool number_integer(int64_t) override { return add({}); }
  bool number_unsigned(uint64_t value) override { return add({.kind = Value::Kind::kNatural, .natural = value}); }
  bool number_float(double, const std::string&) override { return add({}); }
  bool string(std::string& text) override { return add({.kind = Value::Kind::kString, .text = text}); }
  bool binary(nlohmann::json::binary_t&) override { return add({}); }
  bool start_object(size_t) override { return open(Value::Kind::kObject); }
  bool start_array(size_t) override { return open(Value::Kind::kArray); }
  bool key(std::string& text) override {
    key_ = text;
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) override {
    constexpr int kNumberOverflow = 406;
    is_out_of_range = error.id == kNumberOverflow;
    return false;
  }

 private:
  bool add(Value value) {
    if (open_.empty()) {
      root = std::move(value);
    } else {
      open_.back()->members.emplace_back(std::exchange(key_, ""), std::move(value));
    }
    return true;
  }
  bool open(Value::Kind kind) {
    add({.kind = kind});
    open_.push_back(open_.empty() ? &root : &open_.back()->members.back().second);
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::vector<Value*> open_;
  std::string key_;
};

std::optional<std::vector<uint64_t>> naturals_of(const Value& value) {
  std::vector<uint64_t> naturals;
  for (const auto& [_, member] : value.members) {
    if (member.kind != Value::Kind::kNatural) {
      return std::nullopt;
    }
    naturals.push_back(member.natural);
  }
  return value.kind == Value::Kind::kArray ? std::optional(naturals) : std::nullopt;
}

std::optional<TensorEntry> entry_of(const std::string& name, const Value& value) {
  TensorEntry entry;
  entry.name = name;
  std::multiset<std::string> seen;
  for (const auto& [field, member] : value.members) {
    seen.insert(field);
    if (field == "dtype") {
      const std::optional<DType> dtype = dtype_from_name(member.text);
      if (member.kind != Value::Kind::kString || !dtype) {
        return std::nullopt;
      }
      entry.dtype = *dtype;
    } else if (field == "shape" || field == "data_offsets") {
      const auto naturals = naturals_of(member);
      if (!naturals || (field == "data_offsets" && naturals->size() != 2)) {
        return std::nullopt;
      }
      if (field == "shape") {
        entry.shape = *naturals;
      } else {
        entry.begin = (*naturals)[0];
        entry.end = (*naturals)[1];
      }
    }
  }
  const bool is_whole = seen.count("dtype") == 1 && seen.count("shape") == 1 && seen.count("data_offsets") == 1;
  return value.kind == Value::Kind::kObject && is_whole ? std::optional(entry) : std::nullopt;
}

std::optional<Metadata> metadata_of(const Value& value) {
  Metadata metadata;
  for (const auto& [key, member] : value.members) {
    if (member.kind != Value::Kind::kString || !metadata.emplace(key, member.text).second) {
      return std::nullopt;
    }
  }
  return value.kind == Value::Kind::kObject ? std::optional(metadata) : std::nullopt;
}

std::optional<SafetensorsHeader> header_of(const Value& value) {
  SafetensorsHeader header;
  std::set<std::string> names;
  for (const auto& [name, member] : value.members) {
    if (!names.insert(name).second) {
      return std::nullopt;
    }
    if (name == "__metadata__") {
      header.metadata = metadata_of(member);
      if (!header.metadata) {
        return std::nullopt;
      }
      continue;
    }
    const std::optional<TensorEntry> entry = entry_of(name, member);
    if (!entry) {
      return std::nullopt;
    }
    header.tensors.push_back(*entry);
  }
  return value.kind == Value::Kind::kObject ? std::optional(header) : std::nullopt;
}

// How many headers both took and both refused.
struct Agreed {
  size_t taken = 0;
  size_t refused = 0;
};

void compare(const std::string& json, Agreed& agreed) {
  TreeBuilder tree;
  // nlohmann's parser would skip a byte order mark and take a NUL for the end.
  const bool is_json =
      !json.starts_with("\xef\xbb\xbf") && json.find('\0') == std::string::npos && nlohmann::json::sax_parse(json, &tree);
  if (tree.is_out_of_range) {
    return;
  }
  const std::optional<SafetensorsHeader> expected = is_json ? header_of(tree.root) : std::nullopt;
  std::optional<SafetensorsHeader> found;
  std::string refusal;
  try {
    found = parse_header_json(json);
  } catch (const Error& error) {
    refusal = error.what();
    ASSERT_EQ(error.kind(), ErrorKind::kFormat);
    ASSERT_TRUE(error.offset() && *error.offset() >= 8 && *error.offset() <= 8 + json.size()) << json << "\n" << refusal;
  }
  ASSERT_EQ(found.has_value(), expected.has_value()) << json << "\n" << refusal;
  if (!found) {
    ++agreed.refused;
    return;
  }
  ++agreed.taken;
  ASSERT_EQ(found->metadata, expected->metadata) << json;
  ASSERT_EQ(found->tensors.size(), expected->tensors.size()) << json;
  for (size_t i = 0; i < found->tensors.size(); ++i) {
    const TensorEntry& a = found->tensors[i];
    const TensorEntry& b = expected->tensors[i];
    ASSERT_TRUE(a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin && a.end == b.end) << json;
  }
}

const std::vector<std::string>& valid_headers() {
  static const std::vector<std::string> kHeaders = {
      R"({"__metadata__":{"format":"pt","n\u006fte":"\u00e9\ud83d\ude00"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})",
      " {\n\t\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\" : { \"data_offsets\" : [ 0 , 1 ] , \"shape\" : [ ] , \"dtype\" : \"U8\" } "
      "}\r\n",
      R"({"w":{"dtype":"BF16","shape":[0,18446744073709551615],"x":[-1.5e+3,{"y":null,"z":[true,false,"\"\\\/\b\f"]},[]],)"
      R"("data_offsets":[0,0]},"model.layers.0.mlp.down_proj.weight":{"dtype":"F8_E4M3FNUZ","shape":[10],"data_offsets":[0,10]}})",
      "{}",
  };
  return kHeaders;
}

TEST(HeaderJson, AgreesWithTheOracleOnValidHeadersAndAllTheirBeginnings) {
  for (const std::string& header : valid_headers()) {
    Agreed whole;
    compare(header, whole);
    EXPECT_EQ(whole.taken, 1U) << header;
    Agreed cut;
    for (size_t size = 0; size < header.size(); ++size) {
      compare(header.substr(0, size), cut);
    }
    EXPECT_GT(cut.refused, 0U);
  }
}

TEST(HeaderJson, AgreesWithTheOracleWhateverASingleByteBecomes) {
  Agreed agreed;
  for (const std::string& header : valid_headers()) {
    for (size_t i = 0; i < header.size(); ++i) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string changed = header;
        changed[i] = static_cast<char>(byte);
        compare(changed, agreed);
        ASSERT_FALSE(HasFatalFailure());
      }
    }
  }
  EXPECT_GT(agreed.taken, 1000U);
  EXPECT_GT(agreed.refused, 1000U);
}

// Pieces that mean something, whole and broken.
const std::vector<std::string>& pieces() {
  static const std::vector<std::string> kPieces = {"{",
                                                   "}",
                                                   "[",
                                                   "]",
                                                   ",",
                                                   ":",
                                                   "\"",
                                                   "\\",
                                                   "\\\"",
                                                   "\\u0061",
                                                   "\\ud83d",
                                                   "\\ude00",
                                                   "\\u",
                                                   "\xc3\xa9",
                                                   "\xc0\x80",
                                                   "\xed\xa0\x80",
                                                   "\xf4\x90\x80\x80",
                                                   "\xe2\x82",
                                                   "\xff",
                                                   "\xef\xbb\xbf",
                                                   "\0"s,
                                                   "\x1f",
                                                   "\x7f",
                                                   " ",
                                                   "\n",
                                                   "\v",
                                                   "0",
                                                   "1",
                                                   "-",
                                                   "+",
                                                   ".",
                                                   "e",
                                                   "E5",
                                                   "00",
                                                   "1.0",
                                                   "-0",
                                                   "18446744073709551615",
                                                   "18446744073709551616",
                                                   "null",
                                                   "true",
                                                   "nul",
                                                   "NaN",
                                                   "/**/",
                                                   "{}",
                                                   "[]",
                                                   "[1]",
                                                   "\"\"",
                                                   "\"a\"",
                                                   "\"dtype\":\"F32\",",
                                                   "\"shape\":[1],",
                                                   ",\"data_offsets\":[0,1]",
                                                   "\"x\":",
                                                   "\"__metadata__\":{},",
                                                   "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"};
  return kPieces;
}

TEST(HeaderJson, AgreesWithTheOracleOnHeadersChangedAtRandom) {
  std::mt19937 random(20260101);
  const auto below = [&](size_t limit) { return static_cast<size_t>(random() % limit); };
  Agreed agreed;
  for (int round = 0; round < 30'000; ++round) {
    std::string json = valid_headers()[below(valid_headers().size())];
    for (size_t change = 0, changes = 1 + below(3); change < changes; ++change) {
      const size_t at = below(json.size() + 1);
      const size_t length = std::min(json.size() - at, below(12));
      switch (below(4)) {
        case 0:
          json.insert(at, pieces()[below(pieces().size())]);
          break;
        case 1:
          json.erase(at, length);
          break;
        case 2:
          json.replace(at, length, pieces()[below(pieces().size())]);
          break;
        default:
          json.insert(at, json.substr(below(json.size() + 1), below(60)));
      }
    }
    compare(json, agreed);
    ASSERT_FALSE(HasFatalFailure());
  }
  EXPECT_GT(agreed.taken, 500U);
  EXPECT_GT(agreed.refused, 500U);
}

}  // namespace
}  // namespace veturbo::format
