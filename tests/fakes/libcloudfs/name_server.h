#pragma once

#include <string>

#include "objects.h"

// The other end: who is let in, and where the name node is. Both are files in FAKE_CLOUDFS_ROOT, read anew at each use:
//
//   callers    a line for each: ACCESS_KEY SECRET_KEY TOKEN EXPIRY, with `-` for no token and for what never expires; the expiry
//   in
//              seconds since 1970
//   name_node  an address
namespace fake {

// Throws Failure(EACCES).
void check_caller(const Credentials& credentials);

// Throws Failure(ECONNREFUSED).
void check_name_node(const std::string& address);

// Where a path of the name space is on this machine, for a connection that is still let in.
// Throws Failure: EACCES, ECONNREFUSED, or EINVAL for what is no path.
std::string local_path(const Connection& connection, const std::string& path);

}  // namespace fake
