#pragma once

struct CUstream_st;  // what a cudaStream_t points to; so this header needs none of CUDA's

namespace veturbo::cuda {

// A stream of the current device that does not wait for the default one. Throws Error.
CUstream_st* create_stream();
// Which has come to its end.
void destroy_stream(CUstream_st* stream) noexcept;

}  // namespace veturbo::cuda
