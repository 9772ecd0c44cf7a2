#pragma once

#include <cstddef>

namespace veturbo {

// Memory for keys: whole pages, which no core dump holds, and which are wiped and given back to the system when they are freed.
// Without a lock, so that a process can be forked at any time. A page for each key: for the few that there are.
//
// Throws std::bad_alloc.
void* allocate_secret(size_t size);
// `size` as it was allocated.
void free_secret(void* memory, size_t size) noexcept;

// The same for the standard library's containers.
template <typename T>
struct SecretAllocator {
  using value_type = T;

  SecretAllocator() = default;
  template <typename Other>
  explicit SecretAllocator(const SecretAllocator<Other>&) {}

  T* allocate(size_t count) { return static_cast<T*>(allocate_secret(count * sizeof(T))); }
  void deallocate(T* memory, size_t count) noexcept { free_secret(memory, count * sizeof(T)); }

  bool operator==(const SecretAllocator&) const = default;
};

}  // namespace veturbo
