#pragma once

#include <cstdint>

#include "crypto/aes_block.h"
#include "crypto/data_key.h"

struct CUstream_st;  // what a cudaStream_t points to; so this header needs none of CUDA's

namespace veturbo::cuda {

// Encrypts or decrypts, which in CTR mode is the same, `size` bytes of the current device's memory in place. `data` is byte
// `stream_offset` of the stream whose first counter block is `iv`; neither needs any alignment, but where they agree modulo 16
// (address and offset) it takes half the time.
//
// Asynchronous: done once `stream` has got there. Of `keys` nothing is needed after the call. Throws Error if it cannot be
// started; what goes wrong later, CUDA reports to whoever waits for the stream.
void aes_ctr(void* data, uint64_t size, uint64_t stream_offset, const crypto::RoundKeys& keys, const crypto::Iv& iv,
             CUstream_st* stream);

}  // namespace veturbo::cuda
