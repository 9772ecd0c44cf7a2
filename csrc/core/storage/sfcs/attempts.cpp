#include "storage/sfcs/attempts.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <thread>

#include "base/concat.h"

namespace veturbo::storage::sfcs {

namespace {

using std::chrono::milliseconds;
constexpr std::array<milliseconds, 3> kPauses = {milliseconds(50), milliseconds(200), milliseconds(800)};

template <size_t N>
bool is_one_of(int code, const std::array<int, N>& codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

}  // namespace

void Retries::add(const Error& error) {
  std::lock_guard lock(mutex_);
  ++count_;
  last_ = error.cause();
}

std::string Retries::summary() const {
  std::lock_guard lock(mutex_);
  if (count_ == 0) {
    return "";
  }
  return concat(count_, count_ == 1 ? " call failed and was" : " calls failed and were", " made again; the last: ", last_);
}

void Attempts::pause_after(const Error& error) {
  if (!is_transient(error.code())) {
    throw error;
  }
  if (static_cast<size_t>(failures_) == kPauses.size()) {
    Error last(error.kind(), concat(error.cause(), ", for the ", failures_ + 1, "th time"), error.code());
    throw error.offset() ? last.at_offset(*error.offset()) : last;
  }
  retries_.add(error);
  std::this_thread::sleep_for(kPauses[static_cast<size_t>(failures_++)]);
}

bool is_transient(int code) {
  // EIO is what such libraries make of every failure that they have no better word for.
  constexpr std::array kCodes = {ETIMEDOUT,    EAGAIN,       EINTR,        EIO,      ECONNRESET,
                                 ECONNABORTED, ECONNREFUSED, EHOSTUNREACH, ENETDOWN, ENETUNREACH,
                                 ENETRESET,    ENOTCONN,     EPIPE,        ENOBUFS,  EHOSTDOWN};
  return is_one_of(code, kCodes);
}

bool is_denied(int code) {
  return code == EACCES || code == EPERM;
}

bool is_unreachable(int code) {
  constexpr std::array kCodes = {ECONNREFUSED, EHOSTUNREACH, EHOSTDOWN, ENETUNREACH, ETIMEDOUT};
  return is_one_of(code, kCodes);
}

}  // namespace veturbo::storage::sfcs
