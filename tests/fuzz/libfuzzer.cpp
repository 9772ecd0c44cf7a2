// The program of one target: TARGET is its name.
#include <cstddef>
#include <cstdint>

#include "targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  veturbo::fuzz::TARGET({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
