#include "base/secret_memory.h"

#include <openssl/crypto.h>
#include <sys/mman.h>

#include <new>

namespace veturbo {

void* allocate_secret(size_t size) {
  void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::bad_alloc();
  }
  // Fails only where the process may have no more mappings.
  if (::madvise(memory, size, MADV_DONTDUMP) != 0) {
    ::munmap(memory, size);
    throw std::bad_alloc();
  }
  return memory;
}

void free_secret(void* memory, size_t size) noexcept {
  OPENSSL_cleanse(memory, size);  // a forked child may have the pages, too
  ::munmap(memory, size);
}

}  // namespace veturbo
