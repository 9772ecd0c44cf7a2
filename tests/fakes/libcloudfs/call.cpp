#include "call.h"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <map>
#include <random>
#include <thread>

#include "failure.h"
#include "objects.h"
#include "settings.h"

namespace fake {
namespace {

thread_local char error_text[4096] = "";

// Of this process; shared by all threads (lock_state()).
struct Counts {
  std::map<std::string, int64_t> calls;
  std::map<std::string, int64_t> under_way;
  std::map<std::string, int64_t> most_under_way;
  std::mt19937_64 random{settings().short_seed.value_or(0)};
  std::mt19937_64 chance{settings().fault_seed};
};

Counts& counts() {
  static Counts* const counts = new Counts;
  return *counts;
}

const Fault* begin(const char* function) {
  const auto lock = lock_state();
  const int64_t number = ++counts().calls[function];
  int64_t& most = counts().most_under_way[function];
  most = std::max(most, ++counts().under_way[function]);
  for (const Fault& fault : settings().faults) {
    if (fault.function == function && fault.first <= number && number <= fault.last &&
        (fault.probability >= 1 || std::bernoulli_distribution(fault.probability)(counts().chance))) {
      return &fault;
    }
  }
  return nullptr;
}

void end(const char* function) {
  const auto lock = lock_state();
  --counts().under_way[function];
}

int64_t fail_with(Entry& entry, const Failure& failure, int64_t failed) {
  std::string paths;
  for (const std::string& path : entry.paths) {
    paths += (paths.empty() ? "" : ", ") + path;
  }
  std::snprintf(error_text, sizeof error_text, "%s: %s%s%s", entry.function, paths.c_str(), paths.empty() ? "" : ": ",
                failure.reason.c_str());
  entry.code = failure.code;
  return failed;
}

}  // namespace

uint64_t Call::portion(uint64_t size) const {
  if (fails_after_) {
    size = (size + 1) / 2;
  }
  if (!settings().short_seed || size == 0) {
    return size;
  }
  const auto lock = lock_state();
  return std::uniform_int_distribution<uint64_t>(1, size)(counts().random);
}

int64_t perform(Entry entry, Where where, int64_t failed, const std::function<int64_t(Call&)>& body) {
  const int errno_before = errno;
  const auto start = std::chrono::steady_clock::now();
  const Fault* const fault = begin(entry.function);
  Call call(entry, fault != nullptr && fault->after);
  int64_t result = failed;
  try {
    if (fault != nullptr && !fault->after) {
      fail(fault->code);
    }
    result = body(call);
    if (fault != nullptr) {
      fail(fault->code);
    }
  } catch (const Failure& failure) {
    result = fail_with(entry, failure, failed);
  }
  if (where == Where::kServer) {
    std::chrono::duration<double> takes = settings().delay;
    if (settings().bytes_per_second > 0) {
      takes += std::chrono::duration<double>(static_cast<double>(call.transferred()) / settings().bytes_per_second);
    }
    // Until then, not for so long: the work is part of the time.
    std::this_thread::sleep_until(start + std::chrono::duration_cast<std::chrono::steady_clock::duration>(takes));
  }
  end(entry.function);
  entry.result = result;
  write_to_log(entry);
  errno = entry.code == 0 ? errno_before : entry.code;
  return result;
}

void note(const char* function) {
  perform({.function = function}, Where::kClient, 0, [](Call&) { return 0; });
}

const char* last_error() {
  return error_text;
}

namespace {

void begin_anew_after_fork() {
  counts() = Counts();
}

}  // namespace

[[gnu::constructor]] void watch_forks() {
  on_fork(begin_anew_after_fork);
}

// Comes after the destructors of what is static in its callers, which may still close what they have.
[[gnu::destructor]] void write_exit_to_log() {
  const auto lock = lock_state();
  write_to_log("exit " + describe_open_objects() + " most_reads_at_once=" + std::to_string(counts().most_under_way["cfsPread"]) +
               " most_writes_at_once=" + std::to_string(counts().most_under_way["cfsWrite"]) +
               " process=" + std::to_string(::getpid()));
}

}  // namespace fake
