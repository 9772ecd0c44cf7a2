// Memory and threads that there are not: operator new and pthread_create(), which a process takes from here, too.
//
// On a process's first thread only what is large fails: PyTorch's own containers ask for little in functions that are noexcept,
// and nobody can keep that from ending the process. In other threads, which are the engine's, all of it fails.
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <new>

#include "scenario.h"

namespace faulty {
namespace {

constexpr size_t kLarge = 1024;

bool is_first_thread() {
  return ::gettid() == ::getpid();
}

// `caller` is an address in the library that allocates.
bool fails_new(size_t size, const void* caller) {
  if (!is_armed() || (size < kLarge && is_first_thread())) {
    return false;
  }
  Dl_info library = {};
  const bool found = ::dladdr(caller, &library) != 0 && library.dli_fname != nullptr;
  const bool fails = decide(is_first_thread() ? "new" : "new-in-thread", found ? library.dli_fname : "") != 0;
  return fails;
}

}  // namespace
}  // namespace faulty

#define EXPORTED __attribute__((visibility("default")))

EXPORTED void* operator new(size_t size) {
  if (!faulty::fails_new(size, __builtin_return_address(0))) {
    if (void* const memory = std::malloc(size == 0 ? 1 : size)) {
      return memory;
    }
  }
  throw std::bad_alloc();
}

EXPORTED void operator delete(void* memory) noexcept {
  std::free(memory);
}

EXPORTED void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

extern "C" EXPORTED int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                                       void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(::dlsym(RTLD_NEXT, "pthread_create"));
  const int code = faulty::is_armed() ? faulty::decide("pthread_create", "") : 0;
  return code != 0 ? code : create(thread, attributes, run, argument);
}
