#include "cuda/host_memory.h"
#include "cuda/status.h"

namespace veturbo::cuda {

bool pin(void* data, uint64_t size) noexcept {
  return succeeded(cudaHostRegister(data, size, cudaHostRegisterPortable));
}

void unpin(void* data) noexcept {
  succeeded(cudaHostUnregister(data));
}

}  // namespace veturbo::cuda
