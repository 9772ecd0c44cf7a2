// One scenario at a time: calls of one name on paths that contain a text. They are numbered from 1; of those from `first` on each
// is hit with a probability, until `times` have been.
#include "scenario.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <thread>

namespace faulty {
namespace {

struct Scenario {
  std::string call;
  std::string path;
  Effect effect = Effect::kFail;
  long value = 0;
  long first = 1;
  long times = 0;
  double probability = 1;
  std::mt19937_64 random;
};

std::atomic<bool> armed = false;
std::mutex mutex;
Scenario scenario;
long seen = 0;
long made = 0;
std::string hits;
thread_local bool deciding = false;

bool is_hit(const char* call, std::string_view path) {
  if (scenario.call != call || path.find(scenario.path) == std::string::npos || ++seen < scenario.first ||
      made == scenario.times || std::uniform_real_distribution<>()(scenario.random) >= scenario.probability) {
    return false;
  }
  ++made;
  return true;
}

}  // namespace

// Deciding allocates as well, with the mutex locked: what it calls is not decided about.
bool is_armed() {
  return !deciding && armed.load(std::memory_order_acquire);
}

int decide(const char* call, std::string_view path, off_t offset, size_t* count) {
  struct Deciding {
    Deciding() { deciding = true; }
    ~Deciding() { deciding = false; }
  } const guard;
  std::unique_lock lock(mutex);
  if (!is_hit(call, path)) {
    return 0;
  }
  hits += std::to_string(offset) + " " + std::string(path) + "\n";
  const long value = scenario.value;
  switch (scenario.effect) {
    case Effect::kFail:
      return static_cast<int>(value);
    case Effect::kShort:
      if (count != nullptr) {
        *count = value < 0 ? std::max<size_t>(*count / 2, 1) : std::min(*count, static_cast<size_t>(value));
      }
      return 0;
    case Effect::kSlow:
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::milliseconds(value));
      return 0;
    case Effect::kKill:
      ::raise(SIGKILL);
  }
  return 0;
}

}  // namespace faulty

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void faults_arm(const char* call, const char* path, int effect, long value, long first, long times, double probability,
                         uint64_t seed) {
  std::lock_guard lock(faulty::mutex);
  faulty::scenario = {call, path, static_cast<faulty::Effect>(effect), value, first, times, probability, std::mt19937_64(seed)};
  faulty::seen = faulty::made = 0;
  faulty::hits.clear();
  faulty::armed = true;
}

EXPORTED void faults_disarm() {
  faulty::armed = false;
}

// Calls that the scenario was about.
EXPORTED long faults_seen() {
  std::lock_guard lock(faulty::mutex);
  return faulty::seen;
}

// A line for each call that was hit, "OFFSET PATH". Valid until the next scenario; not to be asked for while one is armed.
EXPORTED const char* faults_hits() {
  return faulty::hits.c_str();
}
