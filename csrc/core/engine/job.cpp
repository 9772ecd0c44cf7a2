#include "engine/job.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace veturbo::engine {

Job::~Job() {
  cancel();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void Job::start(int num_threads, uint64_t bytes_total, size_t num_chunks, Work work) {
  work_ = std::move(work);
  bytes_total_ = bytes_total;
  num_chunks_ = num_chunks;
  running_ = static_cast<size_t>(std::max(num_threads, 1));
  const size_t wanted = running_;
  threads_.reserve(static_cast<size_t>(num_threads));
  for (size_t i = 0; i < static_cast<size_t>(num_threads); ++i) {
    try {
      threads_.emplace_back([this, i] {
        run_worker(i);
        leave(1);
      });
    } catch (const std::system_error&) {
      break;  // The system has no more threads: those that there are do the work, at the worst this one.
    }
  }
  if (threads_.empty()) {
    run_worker(0);
  }
  if (threads_.size() < wanted) {
    leave(wanted - threads_.size());
  }
}

void Job::run_worker(size_t worker) {
  try {
    work_.run(*this, worker);
  } catch (...) {
    fail(std::current_exception());
  }
}

void Job::leave(size_t workers) {
  {
    std::lock_guard lock(mutex_);
    running_ -= workers;
    if (running_ > 0) {
      return;
    }
    finishing_ = error_ == nullptr;
  }
  if (finishing_) {
    try {
      work_.finish();
    } catch (...) {
      fail(std::current_exception());
    }
  }
  // Whether it has failed is settled: the workers have left, and cancel() only acts before that.
  if (failed()) {
    work_.abandon();
  }
  std::lock_guard lock(mutex_);
  has_ended_ = true;
  ended_.notify_all();
}

std::optional<size_t> Job::next_chunk() {
  if (stopped()) {
    return std::nullopt;
  }
  const size_t chunk = next_chunk_.fetch_add(1, std::memory_order_relaxed);
  return chunk < num_chunks_ ? std::optional(chunk) : std::nullopt;
}

bool Job::wait(std::optional<std::chrono::duration<double>> timeout) {
  std::unique_lock lock(mutex_);
  const auto ended = [this] { return has_ended_; };
  if (!timeout) {
    ended_.wait(lock, ended);
    return true;
  }
  return ended_.wait_for(lock, *timeout, ended);
}

void Job::rethrow_if_failed() {
  std::lock_guard lock(mutex_);
  if (error_) {
    std::rethrow_exception(error_);
  }
}

void Job::cancel() {
  std::lock_guard lock(mutex_);
  if (!finishing_ && !has_ended_ && !error_) {
    error_ = std::make_exception_ptr(Error(ErrorKind::kCancelled, "cancelled"));
    stopped_.store(true, std::memory_order_relaxed);
  }
}

bool Job::failed() {
  std::lock_guard lock(mutex_);
  return error_ != nullptr;
}

void Job::fail(std::exception_ptr error) {
  std::lock_guard lock(mutex_);
  if (!error_) {
    error_ = std::move(error);
  }
  stopped_.store(true, std::memory_order_relaxed);
}

}  // namespace veturbo::engine
