#include "engine/stream_writer.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace veturbo::engine {

StreamWriter::StreamWriter(std::unique_ptr<storage::WritableFile> file) : file_(std::move(file)), traits_(file_->traits()) {}

StreamWriter::~StreamWriter() {
  end_threads();
}

bool StreamWriter::writes_at_once() const {
  return traits_.run_size != storage::kAnyOrder && traits_.run_size != storage::kInOrder && traits_.parallelism > 1;
}

uint64_t StreamWriter::room_in_run() const {
  return traits_.run_size - (offset_ + traits_.run_shift) % traits_.run_size;
}

void StreamWriter::write(std::span<const std::byte> bytes) {
  if (!writes_at_once()) {
    file_->write_at(offset_, bytes);
    offset_ += bytes.size();
    return;
  }
  while (!bytes.empty()) {
    if (filling_.bytes.empty()) {
      filling_.offset = offset_;
      filling_.bytes.reserve(room_in_run());
    }
    const std::span<const std::byte> piece = bytes.first(std::min<uint64_t>(bytes.size(), room_in_run()));
    const bool fills = piece.size() == room_in_run();
    filling_.bytes.insert(filling_.bytes.end(), piece.begin(), piece.end());
    offset_ += piece.size();
    bytes = bytes.subspan(piece.size());
    if (fills) {
      submit();
    }
  }
}

std::vector<std::string> StreamWriter::commit() {
  if (!filling_.bytes.empty()) {
    submit();
  }
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return unfinished_ == 0 || error_; });
    if (error_) {
      std::rethrow_exception(error_);
    }
  }
  file_->commit();
  return file_->warnings();
}

// Waits for a thread where all have enough to do.
void StreamWriter::submit() {
  std::unique_lock lock(mutex_);
  const size_t most = static_cast<size_t>(traits_.parallelism);
  changed_.wait(lock, [&] { return unfinished_ < most || error_; });
  if (error_) {
    std::rethrow_exception(error_);
  }
  ready_.push_back(std::exchange(filling_, {}));
  ++unfinished_;
  if (!free_.empty()) {
    filling_.bytes = std::move(free_.back());
    free_.pop_back();
  }
  if (threads_.size() < std::min(most, unfinished_)) {
    try {
      threads_.emplace_back([this] { run_thread(); });
    } catch (const std::system_error&) {
      if (threads_.empty()) {
        throw;
      }
    }
  }
  changed_.notify_all();
}

void StreamWriter::run_thread() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ends_ || !ready_.empty(); });
    if (ends_) {
      return;
    }
    Run run = std::move(ready_.front());
    ready_.pop_front();
    lock.unlock();
    std::exception_ptr error;
    try {
      write_run(run);
    } catch (...) {
      error = std::current_exception();
    }
    run.bytes.clear();
    lock.lock();
    free_.push_back(std::move(run.bytes));
    --unfinished_;
    if (error && !error_) {
      error_ = error;
    }
    changed_.notify_all();
  }
}

void StreamWriter::write_run(const Run& run) {
  std::span<const std::byte> rest = run.bytes;
  for (uint64_t offset = run.offset; !rest.empty();) {
    {
      std::lock_guard lock(mutex_);
      if (ends_ || error_) {
        return;
      }
    }
    const std::span<const std::byte> chunk = rest.first(std::min<uint64_t>(rest.size(), traits_.chunk_size));
    file_->write_at(offset, chunk);
    offset += chunk.size();
    rest = rest.subspan(chunk.size());
  }
}

void StreamWriter::end_threads() {
  {
    std::lock_guard lock(mutex_);
    ends_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

}  // namespace veturbo::engine
