// AES-CTR on a GPU. The arithmetic is in csrc/core/crypto, where the CPU's tests reach it; here are the launch and the memory.
//
// How fast: 644 GB/s with a key of 128 bits and 503 with one of 256 on an H200 (2.2 GB in place). That is 0.9 of what the machine
// code lets one expect: what nvcc 13.0 makes for sm_90 (32 registers, nothing spilled) runs for 16 bytes of each of a warp's 32
// threads, with a key of 128 bits (256 bits):
//
//   601 (806) instructions in all        four schedulers start one each a cycle:        150 (202) cycles of a multiprocessor
//   160 (224) loads from shared memory   one a cycle, as no two threads share a bank:   160 (224)
//   366 (495) logical and the like       two a cycle:                                   183 (248), the most
//
// An H200 has 132 multiprocessors at 1.98 GHz: 132 * 1.98e9 * 512 bytes / 183 (248) = 731 (540) GB/s. Reading and writing memory,
// twice that, is below the 4.3 TB/s that the memory gives. Half of all this is left where data and stream are aligned differently
// (aes_ctr_range.h; not measured).
//
// Ruled out: several blocks a thread (a round's 16 lookups do not depend on one another, and 32 warps are there to fill what is
// left); what the first two rounds have in common for 256 neighbouring counters (27 lookups fewer, but it ties the threads to the
// counter's last byte); bit-slicing (no need).
//
// Where the keys are: in the parameters of the launch, which the hardware reads from its constant memory. They are never in
// memory that we allocate, nor in shared memory, which holds what every AES has. The driver's copies for the launch can be
// neither wiped nor timed by us: it uses that memory again for later launches. A launch that is captured into a CUDA graph would
// keep them for as long as the graph lives.
#include <algorithm>
#include <cstdint>

#include "base/concat.h"
#include "base/error.h"
#include "crypto/aes_ctr_range.h"
#include "crypto/aes_tables.h"
#include "cuda/aes_ctr.h"
#include "cuda/status.h"

namespace veturbo::cuda {

namespace {

using crypto::BankedTables;

constexpr unsigned kThreads = 1024;
constexpr unsigned kLanes = BankedTables::kBanks;

__constant__ const crypto::ColumnTable kColumns = crypto::make_column_table();

__global__ void __launch_bounds__(kThreads)
    xor_keystream(const __grid_constant__ crypto::CtrRange range, const __grid_constant__ crypto::RoundKeys keys) {
  extern __shared__ uint32_t memory[];
  const unsigned lane = threadIdx.x % kLanes;
  for (unsigned value = threadIdx.x / kLanes; value < 256; value += kThreads / kLanes) {
    BankedTables::fill_entry(memory, value, kColumns.values[value], lane);
  }
  __syncthreads();
  crypto::xor_keystream(range, keys, BankedTables(memory, lane), uint64_t{blockIdx.x} * kThreads, uint64_t{gridDim.x} * kThreads,
                        threadIdx.x);
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

// More than the 48 KiB that every kernel may have: asked for, on each device anew. GPUs before Volta have no more.
void reserve_table_memory(int device) {
  const int limit = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  constexpr int kBytes = BankedTables::kBytes;
  if (limit < kBytes) {
    throw Error(ErrorKind::kInvalidArgument,
                concat("this GPU has ", limit, " bytes of shared memory for a thread block: AES-CTR on a GPU takes ", kBytes));
  }
  check(cudaFuncSetAttribute(xor_keystream, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "cudaFuncSetAttribute");
}

}  // namespace

void aes_ctr(void* data, uint64_t size, uint64_t stream_offset, const crypto::RoundKeys& keys, const crypto::Iv& iv,
             CUstream_st* stream) {
  if (size == 0) {
    return;
  }
  crypto::CtrRange range = crypto::make_ctr_range(data, size, stream_offset, iv);
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  reserve_table_memory(device);
  // One block a multiprocessor: its 32 warps suffice to keep the lookups busy, and each further one would fill tables of its own.
  const uint64_t useful = (range.num_units() + kThreads - 1) / kThreads;
  const auto present = static_cast<uint64_t>(attribute(cudaDevAttrMultiProcessorCount, device));
  const dim3 grid(static_cast<unsigned>(std::min(useful, present)));
  // Not with <<<>>>, which would copy the keys onto the stack once more.
  void* arguments[] = {&range, const_cast<crypto::RoundKeys*>(&keys)};
  const auto* kernel = reinterpret_cast<const void*>(xor_keystream);
  check(cudaLaunchKernel(kernel, grid, dim3(kThreads), arguments, BankedTables::kBytes, stream), "cudaLaunchKernel");
}

}  // namespace veturbo::cuda
