#include "storage/sfcs/file_info.h"

namespace veturbo::storage::sfcs {

FileInfo get_file_info(const Connection& connection, const std::string& path) {
  const Library& library = connection.library();
  cfsFileInfo* const info = library.get_path_info(connection.get(), path.c_str());
  if (info == nullptr) {
    throw call_error(library, "cfsGetPathInfo");
  }
  const FileInfo result = {info->kind == 'D', static_cast<uint64_t>(info->size), info->lastModified,
                           static_cast<unsigned short>(info->permissions)};
  library.free_file_info(info, 1);
  return result;
}

}  // namespace veturbo::storage::sfcs
