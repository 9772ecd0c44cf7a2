#pragma once

#include <cstddef>
#include <string>

#include "storage/sfcs/cloudfs.h"

namespace veturbo::storage::sfcs {

// The functions of libcloudfs.so, looked up once.
class Library {
 public:
  // The process's one. It is looked for in VETURBOIO_LIBCFS, which names a file; else beside our own library; else where the
  // loader looks. Throws Error(kIo) that says where it was looked for and how to get it; the next call looks again.
  static const Library& get();

  const std::string& path() const { return path_; }

  decltype(&::cfsGetLastError) last_error;
  decltype(&::cfsNewBuilder) new_builder;
  decltype(&::cfsBuilderSetNameNode) set_name_node;
  decltype(&::cfsBuilderConnect) connect;
  decltype(&::cfsFreeBuilder) free_builder;
  decltype(&::cfsDisconnect) disconnect;
  decltype(&::cfsOpenFile) open_file;
  decltype(&::cfsOpenFileAcc) open_file_acc;
  decltype(&::cfsCloseFile) close_file;
  decltype(&::cfsPread) pread;
  decltype(&::cfsWrite) write;
  decltype(&::cfsHSync) hsync;
  decltype(&::cfsGetPathInfo) get_path_info;
  decltype(&::cfsFreeFileInfo) free_file_info;
  decltype(&::cfsDelete) remove;
  decltype(&::cfsRename2) rename;
  decltype(&::cfsConcat) concat;
  decltype(&::cfsCreateDirectory) create_directory;
  decltype(&::cfsGetDefaultBlockSize) default_block_size;
  decltype(&::cfsSetCredentials) set_credentials;  // null in older libraries

 private:
  Library(void* handle, std::string path);

  std::string path_;
};

}  // namespace veturbo::storage::sfcs
