#include "storage/sfcs/library.h"

#include <dlfcn.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <mutex>
#include <utility>

#include "base/concat.h"
#include "base/environment.h"
#include "base/error.h"

namespace veturbo::storage::sfcs {

namespace {

constexpr const char* kName = "libcloudfs.so";
constexpr const char* kVariable = "VETURBOIO_LIBCFS";
constexpr const char* kAdvice = "Get it by: python -m veturboio.get_libcfs";

// Where the package keeps the library: beside the one that this code is in.
std::string path_in_package() {
  Dl_info info = {};
  if (::dladdr(reinterpret_cast<void*>(&path_in_package), &info) == 0 || info.dli_fname == nullptr) {
    return kName;
  }
  return (std::filesystem::path(info.dli_fname).parent_path() / kName).string();
}

struct Found {
  void* handle;
  std::string path;
};

// The handle is never closed: a client library has threads of its own.
void* load(const std::string& path) {
  return ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
}

std::string loader_error() {
  const char* const text = ::dlerror();
  return text == nullptr ? "unknown error" : text;
}

Found find() {
  if (const std::string chosen(environment_variable(kVariable)); !chosen.empty()) {
    if (void* const handle = load(chosen)) {
      return {handle, chosen};
    }
    throw Error(ErrorKind::kIo,
                concat("SFCS's client library does not load: ", kVariable, "=", chosen, ": ", loader_error(), ". ", kAdvice,
                       ", and unset the variable"),
                ELIBACC);
  }
  const std::string packaged = path_in_package();
  std::error_code ignored;
  if (std::filesystem::exists(packaged, ignored)) {
    if (void* const handle = load(packaged)) {
      return {handle, packaged};
    }
    throw Error(ErrorKind::kIo, concat("SFCS's client library does not load: ", packaged, ": ", loader_error(), ". ", kAdvice),
                ELIBACC);
  }
  if (void* const handle = load(kName)) {
    return {handle, kName};
  }
  throw Error(ErrorKind::kIo,
              concat("SFCS's client library is missing: ", kVariable, " is not set, there is no ", packaged,
                     ", and the loader's search path has none (", loader_error(), "). ", kAdvice),
              ELIBACC);
}

template <typename Function>
void look_up(void* handle, const std::string& path, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(handle, name));
  if (function == nullptr) {
    throw Error(ErrorKind::kIo,
                concat(path, " has no function ", name, ": it is another library, or too old for this program. ", kAdvice),
                ELIBBAD);
  }
}

}  // namespace

Library::Library(void* handle, std::string path) : path_(std::move(path)) {
  const auto required = [&](const char* name, auto& function) { look_up(handle, path_, name, function); };
  required("cfsGetLastError", last_error);
  required("cfsNewBuilder", new_builder);
  required("cfsBuilderSetNameNode", set_name_node);
  required("cfsBuilderConnect", connect);
  required("cfsFreeBuilder", free_builder);
  required("cfsDisconnect", disconnect);
  required("cfsOpenFile", open_file);
  required("cfsOpenFileAcc", open_file_acc);
  required("cfsCloseFile", close_file);
  required("cfsPread", pread);
  required("cfsWrite", write);
  required("cfsHSync", hsync);
  required("cfsGetPathInfo", get_path_info);
  required("cfsFreeFileInfo", free_file_info);
  required("cfsDelete", remove);
  required("cfsRename2", rename);
  required("cfsConcat", this->concat);
  required("cfsCreateDirectory", create_directory);
  required("cfsGetDefaultBlockSize", default_block_size);
  set_credentials = reinterpret_cast<decltype(set_credentials)>(::dlsym(handle, "cfsSetCredentials"));
}

const Library& Library::get() {
  static std::mutex mutex;
  static const Library* library = nullptr;  // lives until the process ends, as what it points into
  std::lock_guard lock(mutex);
  if (library == nullptr) {
    Found found = find();
    library = new Library(found.handle, std::move(found.path));  // NOLINT(cppcoreguidelines-owning-memory)
  }
  return *library;
}

}  // namespace veturbo::storage::sfcs
