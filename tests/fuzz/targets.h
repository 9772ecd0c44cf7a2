#pragma once

#include <span>
#include <string_view>

// The parsers that read bytes of others, each with what must hold of it whatever it is given: libFuzzer calls them with what it
// makes up (make fuzz), the unit tests with the seeds and all that was ever found (tests/data/fuzz). They throw std::logic_error
// where something does not hold; what a parser throws itself must be an Error.
namespace veturbo::fuzz {

void safetensors_header(std::string_view input);  // a file
void cipher_header(std::string_view input);       // the JSON of the header
void key_answers(std::string_view input);         // the body of an answer of the trusted service or the KMS
void uri(std::string_view input);
void sfcs_configuration(std::string_view input);  // a path, NUL, the default configuration file, NUL, SFCS_FSNAME

struct Target {
  std::string_view name;
  void (*run)(std::string_view input);
};

constexpr Target kTargets[] = {
    {"safetensors_header", safetensors_header}, {"cipher_header", cipher_header}, {"key_answers", key_answers}, {"uri", uri},
    {"sfcs_configuration", sfcs_configuration},
};

}  // namespace veturbo::fuzz
