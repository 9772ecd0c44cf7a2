#pragma once

#include <map>
#include <string>

#include "objects.h"

namespace fake {

// What a connection needs of the client's configuration.
struct Configuration {
  Credentials credentials;
  std::string name_node;
  int64_t block_size;
};

// Reads the file and checks it: where it is, who may read it, its form, and each property. Throws Failure(EINVAL or ENOENT).
Configuration read_configuration(const std::string& path);

using Properties = std::map<std::string, std::string>;

// The properties of a file in Hadoop's form: <configuration><property><name/><value/></property>...</configuration>.
Properties parse_properties(const std::string& text);

}  // namespace fake
