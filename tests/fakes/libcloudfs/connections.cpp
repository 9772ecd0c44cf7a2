// From a builder to a connection, and its end.

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <string>

#include "call.h"
#include "configuration.h"
#include "failure.h"
#include "name_server.h"

namespace {

using fake::Call;
using fake::Where;

std::atomic<bool> a_thread_connects = false;

int64_t connect(Call& call, fake::Builder& builder, const char* effective_user) {
  if (!builder.default_name_node || effective_user != nullptr) {
    fake::fail(EINVAL, "only the name node \"default\" and no user");
  }
  const char* const path = std::getenv("LIBCLOUDFS_CONF");
  if (path == nullptr) {
    fake::fail(EINVAL, "LIBCLOUDFS_CONF is not set");
  }
  call.entry().paths = {path};
  fake::Configuration configuration = fake::read_configuration(path);
  const fake::Credentials credentials = builder.credentials.value_or(configuration.credentials);
  fake::check_name_node(configuration.name_node);
  fake::check_caller(credentials);
  if (call.fails_after()) {
    return 0;
  }
  const int64_t number = fake::add(fake::Connection{.process = ::getpid(),
                                                    .credentials = credentials,
                                                    .name_node = configuration.name_node,
                                                    .block_size = configuration.block_size});
  builder.consumed = true;
  return number;
}

}  // namespace

cfsBuilder* cfsNewBuilder() {
  const int64_t number = fake::perform({.function = __func__}, Where::kClient, 0, [](Call& call) {
    return call.fails_after() ? 0 : fake::add(fake::Builder{.process = ::getpid()});
  });
  return fake::to_pointer<cfsBuilder*>(number);
}

void cfsBuilderSetNameNode(cfsBuilder* pointer, const char* name_node) {
  fake::builder_of(__func__, pointer).default_name_node = name_node != nullptr && std::string(name_node) == "default";
  fake::note(__func__);
}

#ifndef WITHOUT_SET_CREDENTIALS
int cfsSetCredentials(cfsBuilder* pointer, const char* access_key, const char* secret_key, const char* token) {
  fake::Builder& builder = fake::builder_of(__func__, pointer);
  return static_cast<int>(fake::perform({.function = __func__}, Where::kClient, -1, [&](Call&) {
    if (access_key == nullptr || secret_key == nullptr) {
      fake::fail(EINVAL, "credentials without a key");
    }
    builder.credentials = fake::Credentials{access_key, secret_key, token == nullptr ? "" : token};
    return 0;
  }));
}
#endif

cfsFS cfsBuilderConnect(cfsBuilder* pointer, const char* effective_user) {
  fake::Builder& builder = fake::builder_of(__func__, pointer);
  if (a_thread_connects.exchange(true)) {
    fake::violation(std::string(__func__) + " while another thread is in it: it reads the environment");
  }
  const int64_t number = fake::perform({.function = __func__}, Where::kServer, 0,
                                       [&](Call& call) { return connect(call, builder, effective_user); });
  a_thread_connects = false;
  return fake::to_pointer<cfsFS>(number);
}

void cfsFreeBuilder(cfsBuilder* pointer) {
  fake::builder_of(__func__, pointer).consumed = true;
  fake::note(__func__);
}

// As with a file: whether or not it fails, the connection is gone.
int cfsDisconnect(cfsFS pointer) {
  fake::close_connection(__func__, pointer);
  return static_cast<int>(fake::perform({.function = __func__}, Where::kServer, -1, [](Call&) { return 0; }));
}

const char* cfsGetLastError() {
  return fake::last_error();
}
