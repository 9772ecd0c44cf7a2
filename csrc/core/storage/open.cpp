#include "storage/open.h"

#include <array>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"
#include "base/readable.h"
#include "storage/posix_readable_file.h"
#include "storage/posix_writable_file.h"
#include "storage/sfcs/mount.h"
#include "storage/sfcs/sfcs_readable_file.h"
#include "storage/sfcs/sfcs_writable_file.h"

namespace veturbo::storage {

namespace {

constexpr std::string_view kSchemeEnd = "://";
constexpr size_t kMostOfScheme = 32;  // in an error, which names the whole uri, too

struct Backend {
  std::string_view scheme;                                                // empty: a plain path
  bool is_local;                                                          // what follows the scheme is a path of this machine
  void (*prepare)(const std::string& rest, const std::stop_token& stop);  // null: there is nothing to wait for
  std::unique_ptr<ReadableFile> (*open_for_read)(const std::string& uri, const std::string& rest, const ReadOptions& options);
  std::unique_ptr<WritableFile> (*open_for_write)(const std::string& uri, const std::string& rest, uint64_t size);
};

std::unique_ptr<ReadableFile> open_posix_for_read(const std::string& uri, const std::string& rest, const ReadOptions& options) {
  return PosixReadableFile::open(uri, rest, options.direct_io);
}

std::unique_ptr<WritableFile> open_posix_for_write(const std::string& uri, const std::string& rest, uint64_t size) {
  return std::make_unique<PosixWritableFile>(uri, rest, size);
}

std::unique_ptr<ReadableFile> open_sfcs_for_read(const std::string& uri, const std::string& rest, const ReadOptions&) {
  return sfcs::SfcsReadableFile::open(uri, concat("/", rest));
}

std::unique_ptr<WritableFile> open_sfcs_for_write(const std::string& uri, const std::string& rest, uint64_t size) {
  return std::make_unique<sfcs::SfcsWritableFile>(uri, concat("/", rest), size);
}

void prepare_sfcs(const std::string& rest, const std::stop_token& stop) {
  sfcs::prepare(concat("/", rest), stop);
}

// The one table of storage back ends.
constexpr std::array<Backend, 3> kBackends = {{
    {"", true, nullptr, open_posix_for_read, open_posix_for_write},
    {"file", true, nullptr, open_posix_for_read, open_posix_for_write},
    {"sfcs", false, prepare_sfcs, open_sfcs_for_read, open_sfcs_for_write},
}};

struct Target {
  const Backend* backend;
  std::string rest;
};

const Backend& backend_of(std::string_view scheme, std::string_view uri) {
  std::string known;
  for (const Backend& backend : kBackends) {
    if (backend.scheme == scheme) {
      return backend;
    }
    if (!backend.scheme.empty()) {
      known += concat(known.empty() ? "" : ", ", backend.scheme, kSchemeEnd);
    }
  }
  throw Error(ErrorKind::kInvalidArgument, concat("no storage back end for \"", readable(scheme, kMostOfScheme), kSchemeEnd,
                                                  "\": give a path or one of ", known))
      .in_file(uri);
}

std::string absolute(std::string_view path) {
  std::error_code code;
  const std::filesystem::path whole = std::filesystem::absolute(std::filesystem::path(path), code);
  if (code) {  // it is empty, or the working directory is gone
    throw Error::from_errno(code.value(), "cannot make the path absolute").in_file(path);
  }
  const std::string normal = whole.lexically_normal().string();
  // Of slashes alone the library leaves as many as there are.
  return normal.find_first_not_of('/') == std::string::npos ? "/" : normal;
}

// Whether plain paths are those of SFCS, too: all but those in shared memory. What is local all the same has file:// before it.
bool is_in_sfcs(std::string_view path) {
  return !path.empty() && environment_variable("VETURBOIO_USE_SFCS_SDK") == "1" && !absolute(path).starts_with("/dev/shm/");
}

Target resolve(std::string_view uri) {
  if (uri.find('\0') != std::string_view::npos) {
    throw Error(ErrorKind::kInvalidArgument, "a path cannot contain a NUL byte").in_file(uri.substr(0, uri.find('\0')));
  }
  const size_t end = uri.find(kSchemeEnd);
  const size_t slash = uri.find('/');
  // Only what stands before the first slash can be a scheme: "a/b://c" is a path.
  if (end != std::string_view::npos && end > 0 && slash == end + 1) {
    return {&backend_of(uri.substr(0, end), uri), std::string(uri.substr(end + kSchemeEnd.size()))};
  }
  return is_in_sfcs(uri) ? Target{&backend_of("sfcs", uri), absolute(uri)} : Target{&backend_of("", uri), std::string(uri)};
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

void prepare(const std::string& uri, const std::stop_token& stop) {
  const Target target = resolve(uri);
  if (target.backend->prepare == nullptr) {
    return;
  }
  try {
    target.backend->prepare(target.rest, stop);
  } catch (Error& error) {
    throw error.in_file(uri);
  }
}

void disconnect() {
  sfcs::disconnect();
}

std::string absolute_path(const std::string& uri) {
  const Target target = resolve(uri);
  return absolute(target.backend->is_local ? target.rest : concat("/", target.rest));
}

bool is_local(const std::string& uri) {
  return resolve(uri).backend->is_local;
}

}  // namespace veturbo::storage
