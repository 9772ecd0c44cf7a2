#include "storage/sfcs/small_file.h"

#include <fcntl.h>

#include <cerrno>
#include <span>

#include "base/error.h"
#include "base/unique_fd.h"
#include "storage/system_calls.h"

namespace veturbo::storage::sfcs {

std::optional<Secret> read_if_there(const std::string& path) {
  const SystemCalls& calls = system_calls();
  const UniqueFd fd(uninterrupted([&] { return calls.open(path.c_str(), O_RDONLY | O_CLOEXEC, 0); }));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return std::nullopt;
    }
    throw Error::from_errno(errno, path);
  }
  Secret content;
  Secret piece(size_t{64} << 10U);
  try {
    while (const size_t got = read_fully(calls, fd.get(), content.size(), piece.bytes())) {
      content.append(piece.text().substr(0, got));
    }
  } catch (const Error& error) {
    throw Error::from_errno(error.code(), path);
  }
  return content;
}

}  // namespace veturbo::storage::sfcs
