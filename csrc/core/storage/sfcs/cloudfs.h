#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>

// The C interface of libcloudfs.so, the client library of SFCS, as far as it is used here. The library is closed, comes without a
// header and is loaded at run time: these are the declarations that its functions are called by, and, in the tests, those that a
// stand-in for it defines.
//
// What returns an int returns 0, or -1 with errno set; what returns a pointer returns null then. cfsGetLastError() has the text.
extern "C" {

using tSize = int32_t;
using tOffset = int64_t;
using tTime = time_t;

struct cfsFSInternal;
struct cfsFileInternal;
struct cfsBuilder;
using cfsFS = cfsFSInternal*;
using cfsFile = cfsFileInternal*;

struct cfsFileInfo {
  int kind;  // 'F' or 'D'
  char* name;
  tTime lastModified;
  tOffset size;
  short replication;
  tOffset blockSize;
  char* owner;
  char* group;
  short permissions;
  tTime lastAccess;
  void* encryptionInfo;
  void* blocks;
  int numOfBlocks;
  int accStatus;
};

const char* cfsGetLastError(void);

cfsBuilder* cfsNewBuilder(void);
void cfsBuilderSetNameNode(cfsBuilder*, const char*);  // "default": the one of the configuration
int cfsSetCredentials(cfsBuilder*, const char* access_key, const char* secret_key, const char* token);  // newer libraries only
cfsFS cfsBuilderConnect(cfsBuilder*, const char* effective_user);  // consumes the builder, unless it fails
void cfsFreeBuilder(cfsBuilder*);
int cfsDisconnect(cfsFS);

cfsFile cfsOpenFile(cfsFS, const char* path, int flags, int buffer_size, short replication, tOffset block_size);
cfsFile cfsOpenFileAcc(cfsFS, const char* path, int flags, mode_t, int create_parent, int is_appendable);
int cfsCloseFile(cfsFS, cfsFile);
tSize cfsPread(cfsFS, cfsFile, tOffset, void*, tSize);
int64_t cfsWrite(cfsFS, cfsFile, const void*, uint64_t);
int cfsHSync(cfsFS, cfsFile);

cfsFileInfo* cfsGetPathInfo(cfsFS, const char* path);
void cfsFreeFileInfo(cfsFileInfo*, int count);
int cfsDelete(cfsFS, const char* path, int recursive);
int cfsRename2(cfsFS, const char* from, const char* to);                    // replaces `to`
int cfsConcat(cfsFS, const char* target, const char** sources, int count);  // appends the sources, and removes them
int cfsCreateDirectory(cfsFS, const char* path);                            // and its parents
tOffset cfsGetDefaultBlockSize(cfsFS);
}
