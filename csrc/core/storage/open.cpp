#include "storage/open.h"

#include <array>
#include <filesystem>
#include <string_view>

#include "base/concat.h"
#include "base/error.h"
#include "storage/posix_readable_file.h"
#include "storage/posix_writable_file.h"

namespace veturbo::storage {

namespace {

constexpr std::string_view kSchemeEnd = "://";

struct Backend {
  std::string_view scheme;  // empty: a plain path
  bool is_local;            // what follows the scheme is a path of this machine
  std::unique_ptr<ReadableFile> (*open_for_read)(const std::string& uri, std::string_view rest, const ReadOptions& options);
  std::unique_ptr<WritableFile> (*open_for_write)(const std::string& uri, std::string_view rest, uint64_t size);
};

std::unique_ptr<ReadableFile> open_posix_for_read(const std::string& uri, std::string_view rest, const ReadOptions& options) {
  return PosixReadableFile::open(uri, std::string(rest), options.direct_io);
}

std::unique_ptr<WritableFile> open_posix_for_write(const std::string& uri, std::string_view rest, uint64_t size) {
  return std::make_unique<PosixWritableFile>(uri, std::string(rest), size);
}

// The one table of storage back ends.
constexpr std::array<Backend, 2> kBackends = {{
    {"", true, open_posix_for_read, open_posix_for_write},
    {"file", true, open_posix_for_read, open_posix_for_write},
}};

struct Target {
  const Backend* backend;
  std::string_view rest;
};

Target resolve(std::string_view uri) {
  if (uri.find('\0') != std::string_view::npos) {
    throw Error(ErrorKind::kInvalidArgument, "a path cannot contain a NUL byte").in_file(uri.substr(0, uri.find('\0')));
  }
  const size_t end = uri.find(kSchemeEnd);
  const size_t slash = uri.find('/');
  // Only what stands before the first slash can be a scheme: "a/b://c" is a path.
  const bool has_scheme = end != std::string_view::npos && end > 0 && slash == end + 1;
  const std::string_view scheme = has_scheme ? uri.substr(0, end) : std::string_view{};
  const std::string_view rest = has_scheme ? uri.substr(end + kSchemeEnd.size()) : uri;
  std::string known;
  for (const Backend& backend : kBackends) {
    if (backend.scheme == scheme) {
      return {&backend, rest};
    }
    if (!backend.scheme.empty()) {
      known += concat(known.empty() ? "" : ", ", backend.scheme, kSchemeEnd);
    }
  }
  throw Error(ErrorKind::kInvalidArgument,
              concat("no storage back end for \"", scheme, kSchemeEnd, "\": give a path or one of ", known))
      .in_file(uri);
}

}  // namespace

std::unique_ptr<ReadableFile> open_for_read(const std::string& uri, const ReadOptions& options) {
  const Target target = resolve(uri);
  return target.backend->open_for_read(uri, target.rest, options);
}

std::unique_ptr<WritableFile> open_for_write(const std::string& uri, uint64_t size) {
  const Target target = resolve(uri);
  return target.backend->open_for_write(uri, target.rest, size);
}

std::string absolute_uri(const std::string& uri) {
  const Target target = resolve(uri);
  if (!target.backend->is_local) {
    return uri;
  }
  return std::filesystem::absolute(std::filesystem::path(target.rest)).lexically_normal().string();
}

}  // namespace veturbo::storage
