#include "cuda/status.h"
#include "cuda/stream.h"

namespace veturbo::cuda {

CUstream_st* create_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}

void destroy_stream(CUstream_st* stream) noexcept {
  succeeded(cudaStreamDestroy(stream));
}

}  // namespace veturbo::cuda
