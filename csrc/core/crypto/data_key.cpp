#include "crypto/data_key.h"

#include <algorithm>
#include <utility>

#include "base/concat.h"
#include "base/error.h"

namespace veturbo::crypto {

DataKey make_data_key(Secret key, std::span<const std::byte> iv, std::string_view key_name, std::string_view iv_name) {
  if (key.size() != 16 && key.size() != 32) {
    throw Error(ErrorKind::kInvalidArgument, concat(key_name, " has ", key.size(), " bytes: AES-CTR takes 16 or 32"));
  }
  if (iv.size() != kBlockBytes) {
    throw Error(ErrorKind::kInvalidArgument, concat(iv_name, " has ", iv.size(), " bytes: AES-CTR takes ", kBlockBytes));
  }
  DataKey data_key{std::move(key), {}};
  std::copy(iv.begin(), iv.end(), data_key.iv.begin());
  return data_key;
}

}  // namespace veturbo::crypto
