// What one_load.py does with the tensors that it was given, in a library for Python's ctypes: all cores read all of their bytes.
// In Python, 20,000 small tensors would take longer to be summed up than to be loaded.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "page_sums.h"

// The checksum of page_sums.h over `count` tensors, made by `threads` threads.
extern "C" uint64_t touch(const char* const* data, const size_t* sizes, size_t count, int threads) {
  std::vector<bench::Bytes> tensors;
  tensors.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    if (sizes[i] > 0) tensors.push_back({data[i], sizes[i]});
  }
  return bench::sum_pages(tensors, threads);
}
