#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace veturbo::engine {

// Work shared out to threads that live as long as it does: counts what is done, can be cancelled, keeps the first error and stops
// the others, and always joins.
//
// Between jobs there are no threads, so a process may fork there. It may also while a job runs: in the child that job counts as
// failed, since its threads are not there, and is left as it was.
class Job {
 public:
  struct Work {
    // Run by every worker, 0 to num_threads - 1, and those added later; takes chunks until next_chunk() has none.
    std::function<void(Job&, size_t worker)> run;
    // Run once by whichever worker ends last, if none has failed.
    std::function<void()> finish = [] {};
    // Run once after the last worker, if one of them or `finish` has failed. Must not throw.
    std::function<void()> abandon = [] {};
  };

  Job() = default;
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // Cancels a job that nobody will ask for its result, and waits for its threads as its destructor does, but for no more than
  // `most_wait`: a server that does not answer may keep them in the system. They then keep the job, and all that `job` owns (it
  // is to own what they use), until some later call finds that they have come back.
  static void drop(std::shared_ptr<Job> job, std::chrono::milliseconds most_wait = std::chrono::milliseconds(100));

  // Starts the work, once. With no threads it is done when start() returns, on the calling thread.
  void start(int num_threads, uint64_t bytes_total, size_t num_chunks, Work work);

  // For workers: the index of a chunk that nobody has taken, or nothing when none is left or the job is to stop.
  std::optional<size_t> next_chunk();
  void add_done(uint64_t bytes) { bytes_done_.fetch_add(bytes, std::memory_order_relaxed); }
  // For workers: starts more of them until there are `num_threads`, if the job has work left and the system has threads.
  void add_workers(int num_threads);
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

  // Waits until the work has ended, well or badly; false when `timeout` passed before it did.
  bool wait(std::optional<std::chrono::duration<double>> timeout);
  // The same for callers that have no other word for "without end" than a negative number.
  bool wait_seconds(double seconds) {
    return wait(seconds < 0 ? std::nullopt : std::optional(std::chrono::duration<double>(seconds)));
  }
  // Throws what a worker threw first.
  void rethrow_if_failed();
  // Asks the workers to stop after their present chunk; the job then fails with Error(kCancelled). Once `finish` has begun the
  // job can no longer be cancelled.
  void cancel();

  uint64_t bytes_done() const { return bytes_done_.load(std::memory_order_relaxed); }
  uint64_t bytes_total() const { return bytes_total_; }

 private:
  static std::shared_ptr<Job> take_idle_dropped();
  bool is_parents() const;
  bool is_idle() const { return process_ == 0 || has_ended_ || is_parents(); }
  bool failed();
  void fail(std::exception_ptr error);
  size_t start_threads(size_t until);
  void run_worker(size_t worker);
  void leave(size_t workers);

  pid_t process_ = 0;  // that has started it
  Work work_;
  uint64_t bytes_total_ = 0;
  size_t num_chunks_ = 0;
  std::atomic<size_t> next_chunk_ = 0;
  std::atomic<uint64_t> bytes_done_ = 0;
  std::atomic<bool> stopped_ = false;

  std::mutex mutex_;
  // Destroying it waits for those who wait for it, who are not there in a forked child.
  std::unique_ptr<std::condition_variable> ended_ = std::make_unique<std::condition_variable>();
  size_t running_ = 0;  // workers that have not left, or are still to be started
  bool finishing_ = false;
  std::atomic<bool> has_ended_ = false;
  std::exception_ptr error_;
  std::vector<std::thread> threads_;
  std::shared_ptr<Job> next_dropped_;
};

}  // namespace veturbo::engine
