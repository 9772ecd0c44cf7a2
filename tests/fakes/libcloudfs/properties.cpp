// XML as far as Hadoop's configurations use it: elements without attributes, text, references to characters, comments.

#include <cerrno>

#include "configuration.h"
#include "failure.h"

namespace fake {
namespace {

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Properties parse() {
    if (peek("<?xml ")) {
      skip_past("?>");
    }
    skip_space();
    expect("<configuration>");
    Properties properties;
    for (skip_space(); !peek("</configuration>"); skip_space()) {
      property(properties);
    }
    expect("</configuration>");
    skip_space();
    if (position_ != text_.size()) {
      malformed("something follows </configuration>");
    }
    return properties;
  }

 private:
  void property(Properties& properties) {
    expect("<property>");
    skip_space();
    const std::string name = element("name");
    skip_space();
    const std::string value = element("value");
    skip_space();
    expect("</property>");
    if (!properties.emplace(name, value).second) {
      malformed("property " + name + " is there twice");
    }
  }

  std::string element(const std::string& tag) {
    expect("<" + tag + ">");
    std::string value;
    while (position_ < text_.size() && text_[position_] != '<') {
      value += text_[position_] == '&' ? reference() : character();
    }
    expect("</" + tag + ">");
    return value;
  }

  char character() {
    const char c = text_[position_];
    if (static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n' && c != '\r') {
      malformed("a control character");
    }
    if (peek("]]>")) {
      malformed("]]> in a text");
    }
    ++position_;
    return c;
  }

  char reference() {
    static const std::map<std::string, char> kNamed = {
        {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (const auto& [name, character] : kNamed) {
      if (peek(name)) {
        position_ += name.size();
        return character;
      }
    }
    malformed("an & that is not one of the five references that are read here");
  }

  void skip_space() {
    while (position_ < text_.size()) {
      if (peek("<!--")) {
        skip_past("-->");
      } else if (std::string(" \t\r\n").find(text_[position_]) != std::string::npos) {
        ++position_;
      } else {
        return;
      }
    }
  }

  bool peek(const std::string& token) const { return text_.compare(position_, token.size(), token) == 0; }

  void skip_past(const std::string& token) {
    const size_t found = text_.find(token, position_);
    if (found == std::string::npos) {
      malformed("no " + token);
    }
    position_ = found + token.size();
  }

  void expect(const std::string& token) {
    if (!peek(token)) {
      malformed("no " + token);
    }
    position_ += token.size();
  }

  [[noreturn]] void malformed(const std::string& what) const {
    fail(EINVAL, "the configuration is malformed at byte " + std::to_string(position_) + ": " + what);
  }

  const std::string& text_;
  size_t position_ = 0;
};

}  // namespace

Properties parse_properties(const std::string& text) {
  return Parser(text).parse();
}

}  // namespace fake
