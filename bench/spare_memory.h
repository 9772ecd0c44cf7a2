// As ask_for_spare_memory() in spare_memory.py, which says why.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace bench {

inline void ask_for_spare_memory() {
  int ask = -1, answer = -1;
  char byte = '?';
  const char* descriptors = std::getenv("VETURBOIO_BENCH_SPARE_MEMORY");
  if (descriptors == nullptr || std::sscanf(descriptors, "%d,%d", &ask, &answer) != 2) return;
  if (write(ask, &byte, 1) != 1 || read(answer, &byte, 1) != 1) std::perror("asking for spare memory");
}

}  // namespace bench
