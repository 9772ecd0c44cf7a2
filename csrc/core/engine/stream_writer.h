#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "storage/writable_file.h"

namespace veturbo::engine {

// Writes a file from its start on, for those who make it piece by piece. Where the storage takes several runs at once, each is
// kept until it is whole and then written by a thread, while the next ones come: memory for as many runs as are written at once,
// and one.
class StreamWriter {
 public:
  explicit StreamWriter(std::unique_ptr<storage::WritableFile> file);
  // Without commit() nothing of the file is left.
  ~StreamWriter();
  StreamWriter(const StreamWriter&) = delete;
  StreamWriter& operator=(const StreamWriter&) = delete;

  const std::string& uri() const { return file_->uri(); }
  // Appends. What it throws may be of bytes that came before.
  void write(std::span<const std::byte> bytes);
  // Gives the file its name, and returns its warnings.
  std::vector<std::string> commit();

 private:
  struct Run {
    uint64_t offset = 0;
    std::vector<std::byte> bytes;
  };

  bool writes_at_once() const;
  uint64_t room_in_run() const;
  void submit();
  void write_run(const Run& run);
  void run_thread();
  void end_threads();

  std::unique_ptr<storage::WritableFile> file_;
  const storage::WriteTraits traits_;
  uint64_t offset_ = 0;  // of what comes next
  Run filling_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Run> ready_;
  std::vector<std::vector<std::byte>> free_;
  size_t unfinished_ = 0;  // runs that are ready or being written
  bool ends_ = false;
  std::exception_ptr error_;
  std::vector<std::thread> threads_;
};

}  // namespace veturbo::engine
