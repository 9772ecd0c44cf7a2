#pragma once

namespace veturbo::cuda {

// The version of the CUDA toolkit that compiled the kernels, as 13000 for 13.0.
int toolkit_version();

}  // namespace veturbo::cuda
