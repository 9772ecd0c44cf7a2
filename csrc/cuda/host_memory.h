#pragma once

#include <cstdint>

namespace veturbo::cuda {

// Pins page-aligned memory of the host, so that every device copies from and to it by itself. The calling thread's current device
// is one that is in use: CUDA would set up any other. False when the system does not allow it: copies then take longer, no more.
bool pin(void* data, uint64_t size) noexcept;
void unpin(void* data) noexcept;

}  // namespace veturbo::cuda
