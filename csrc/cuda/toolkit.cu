#include <cuda_runtime_api.h>

#include "cuda/toolkit.h"

namespace veturbo::cuda {

int toolkit_version() {
  return CUDART_VERSION;
}

}  // namespace veturbo::cuda
