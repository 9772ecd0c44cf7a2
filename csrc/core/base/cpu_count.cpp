#include "base/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace veturbo {

int available_cpus() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    return CPU_COUNT(&set);
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace veturbo
