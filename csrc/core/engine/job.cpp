#include "engine/job.h"

#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace veturbo::engine {

namespace {

// The jobs that were dropped while their threads were in the system. Not destroyed with the process: that would wait for them.
std::mutex dropped_mutex;
// NOLINTNEXTLINE(cppcoreguidelines-owning-memory)
std::shared_ptr<Job>& first_dropped = *new std::shared_ptr<Job>;

}  // namespace

Job::~Job() {
  if (is_parents()) {
    // Not even detached: of a thread that is not there that may be refused.
    // NOLINTNEXTLINE(cppcoreguidelines-owning-memory,bugprone-unhandled-exception-at-new)
    static_cast<void>(new std::vector<std::thread>(std::move(threads_)));
    static_cast<void>(ended_.release());
    return;
  }
  cancel();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void Job::drop(std::shared_ptr<Job> job, std::chrono::milliseconds most_wait) {
  std::shared_ptr<Job> idle = take_idle_dropped();
  while (idle) {
    idle = std::move(idle->next_dropped_);
  }
  if (job->is_idle()) {
    return;
  }
  job->cancel();
  if (!job->wait(most_wait)) {
    std::lock_guard lock(dropped_mutex);
    job->next_dropped_ = std::exchange(first_dropped, job);
  }
}

// A list of them, like that of the dropped ones.
std::shared_ptr<Job> Job::take_idle_dropped() {
  std::shared_ptr<Job> idle;
  std::lock_guard lock(dropped_mutex);
  std::shared_ptr<Job>* link = &first_dropped;
  while (*link) {
    if ((*link)->is_idle()) {
      std::shared_ptr<Job> job = std::exchange(*link, std::move((*link)->next_dropped_));
      job->next_dropped_ = std::exchange(idle, job);
    } else {
      link = &(*link)->next_dropped_;
    }
  }
  return idle;
}

void Job::start(int num_threads, uint64_t bytes_total, size_t num_chunks, Work work) {
  process_ = ::getpid();
  work_ = std::move(work);
  bytes_total_ = bytes_total;
  num_chunks_ = num_chunks;
  const size_t wanted = static_cast<size_t>(std::max(num_threads, 1));
  size_t started = 0;
  {
    std::lock_guard lock(mutex_);
    running_ = wanted;
    started = start_threads(static_cast<size_t>(num_threads));
  }
  // The system may have no more threads: those that there are do the work, at the worst this one.
  if (started == 0) {
    run_worker(0);
  }
  if (started < wanted) {
    leave(wanted - started);
  }
}

void Job::add_workers(int num_threads) {
  std::lock_guard lock(mutex_);
  if (!stopped() && next_chunk_.load(std::memory_order_relaxed) < num_chunks_) {
    running_ += start_threads(static_cast<size_t>(num_threads));
  }
}

// Until there are so many, and returns how many it has started. With mutex_ locked, so that none of them leaves before it is
// counted.
size_t Job::start_threads(size_t until) {
  size_t started = 0;
  try {
    threads_.reserve(until);
    for (; threads_.size() < until; ++started) {
      threads_.emplace_back([this, worker = threads_.size()] {
        run_worker(worker);
        leave(1);
      });
    }
  } catch (const std::system_error&) {
    return started;
  }
  return started;
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
  ended_->notify_all();
}

std::optional<size_t> Job::next_chunk() {
  if (stopped()) {
    return std::nullopt;
  }
  const size_t chunk = next_chunk_.fetch_add(1, std::memory_order_relaxed);
  return chunk < num_chunks_ ? std::optional(chunk) : std::nullopt;
}

// In a forked child anyone may have held the mutex for ever.
bool Job::is_parents() const {
  return process_ != 0 && process_ != ::getpid();
}

bool Job::wait(std::optional<std::chrono::duration<double>> timeout) {
  if (is_parents()) {
    return true;
  }
  std::unique_lock lock(mutex_);
  const auto ended = [this] { return has_ended_.load(); };
  if (!timeout) {
    ended_->wait(lock, ended);
    return true;
  }
  return ended_->wait_for(lock, *timeout, ended);
}

void Job::rethrow_if_failed() {
  if (is_parents() && !has_ended_) {
    throw Error(ErrorKind::kCancelled,
                "this was begun before the process was forked, and goes on only in the parent: begin it here");
  }
  std::unique_lock lock(mutex_, std::defer_lock);
  if (!is_parents()) {
    lock.lock();
  }
  if (error_) {
    std::rethrow_exception(error_);
  }
}

void Job::cancel() {
  if (is_parents()) {
    return;
  }
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
