#pragma once

#include <cuda_runtime_api.h>

#include "base/concat.h"
#include "base/error.h"

namespace veturbo::cuda {

// Whether a call succeeded. What it failed with is told here, and to nobody after: PyTorch would take it for a failure of
// whatever it launches next.
inline bool succeeded(cudaError_t status) {
  if (status == cudaSuccess) {
    return true;
  }
  cudaGetLastError();
  return false;
}

inline void check(cudaError_t status, const char* call) {
  if (!succeeded(status)) {
    const ErrorKind kind = status == cudaErrorMemoryAllocation ? ErrorKind::kOutOfMemory : ErrorKind::kIo;
    throw Error(kind, concat(call, ": ", cudaGetErrorString(status)));
  }
}

}  // namespace veturbo::cuda
