#include "device.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <thread>

namespace fake {

Machine& Machine::get() {
  static Machine* const machine = new Machine;  // never destroyed: its threads run until the process ends
  return *machine;
}

// Streams.

void Machine::push(StreamId id, Operation operation) {
  Stream& stream = streams_[id.device][id.index];
  stream.queue.push_back(std::move(operation));
  if (!stream.started) {
    stream.started = true;
    std::thread([this, id] { run(id); }).detach();
  }
  changed_.notify_all();
}

void Machine::run(StreamId id) {
  Stream& stream = streams_[id.device][id.index];
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return !stream.held && !stream.queue.empty() && stream.queue.front().ready(); });
    Operation& operation = stream.queue.front();  // stays where it is while others are added
    lock.unlock();
    if (operation.delay_us > 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(operation.delay_us));
    }
    std::string failure;
    try {
      operation.work();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    lock.lock();
    if (!failure.empty()) {
      violations_ += "queued work failed: " + failure + "\n";
    }
    counters_.bytes_in_flight -= operation.bytes;
    stream.queue.pop_front();
    changed_.notify_all();
  }
}

void Machine::queue(StreamId stream, std::function<void()> work, std::vector<Range> memory) {
  std::lock_guard lock(mutex_);
  push(stream, {[] { return true; }, std::move(work), std::move(memory), 0, 0});
}

void Machine::queue_copy(StreamId stream, std::function<void()> work, std::vector<Range> memory, int64_t bytes) {
  std::lock_guard lock(mutex_);
  if (knobs_.fail_copy > 0 && --knobs_.fail_copy == 0) {
    throw std::runtime_error("fake accelerator: this copy was told to fail");
  }
  ++counters_.copies;
  counters_.bytes_in_flight += bytes;
  counters_.peak_bytes_in_flight = std::max(counters_.peak_bytes_in_flight, counters_.bytes_in_flight);
  // Most copies begin at once: with every one late the tests would take minutes, and a race needs only some.
  const bool late = knobs_.max_delay_us > 0 && random_() % 4 == 0;
  const int64_t delay = late ? static_cast<int64_t>(random_() % static_cast<uint64_t>(knobs_.max_delay_us)) : 0;
  push(stream, {[] { return true; }, std::move(work), std::move(memory), bytes, delay});
}

void Machine::synchronize(StreamId stream) {
  const auto event = std::make_shared<Event>();
  std::unique_lock lock(mutex_);
  record_locked(event, stream);
  changed_.wait(lock, [&] { return event->reached == event->recorded; });
}

void Machine::synchronize_device(int device) {
  for (int64_t index = 0; index < kStreamsPerDevice; ++index) {
    synchronize(StreamId{device, index});
  }
}

bool Machine::is_idle(StreamId stream) {
  std::lock_guard lock(mutex_);
  return streams_[stream.device][stream.index].queue.empty();
}

StreamId Machine::next_in_pool(int device) {
  std::lock_guard lock(mutex_);
  return {device, 1 + next_in_pool_[device]++ % (kStreamsPerDevice - 1)};
}

void Machine::hold(StreamId stream, bool held) {
  std::lock_guard lock(mutex_);
  streams_[stream.device][stream.index].held = held;
  changed_.notify_all();
}

// Events.

void Machine::record_locked(const std::shared_ptr<Event>& event, StreamId stream) {
  const uint64_t version = ++event->recorded;
  const auto reach = [this, event, version] {
    std::lock_guard lock(mutex_);
    event->reached = std::max(event->reached, version);
  };
  push(stream, {[] { return true; }, reach, {}, 0, 0});
}

void Machine::block_locked(const std::shared_ptr<Event>& event, StreamId stream) {
  const uint64_t version = event->recorded;
  push(stream, {[event, version] { return event->reached >= version; }, [] {}, {}, 0, 0});
}

void Machine::record(const std::shared_ptr<Event>& event, StreamId stream) {
  std::lock_guard lock(mutex_);
  record_locked(event, stream);
}

void Machine::block(const std::shared_ptr<Event>& event, StreamId stream) {
  std::lock_guard lock(mutex_);
  block_locked(event, stream);
}

bool Machine::is_reached(const Event& event) {
  std::lock_guard lock(mutex_);
  return event.reached == event.recorded;
}

void Machine::synchronize(const Event& event) {
  std::unique_lock lock(mutex_);
  if (knobs_.fail_event > 0 && --knobs_.fail_event == 0) {
    throw std::runtime_error("fake accelerator: this event was told to fail");
  }
  const uint64_t version = event.recorded;
  changed_.wait(lock, [&] { return event.reached >= version; });
}

// Tests.

Knobs Machine::knobs() {
  std::lock_guard lock(mutex_);
  return knobs_;
}

void Machine::set_knobs(const Knobs& knobs) {
  std::lock_guard lock(mutex_);
  knobs_ = knobs;
}

Counters Machine::counters() {
  std::lock_guard lock(mutex_);
  return counters_;
}

void Machine::reset_counters() {
  std::lock_guard lock(mutex_);
  counters_.copies = 0;
  counters_.peak_bytes_in_flight = counters_.bytes_in_flight;
  counters_.peak_pinned_bytes = counters_.pinned_bytes;
}

void Machine::seed(uint64_t seed) {
  std::lock_guard lock(mutex_);
  random_.seed(seed);
}

std::string Machine::violations() {
  std::lock_guard lock(mutex_);
  return violations_;
}

void Machine::clear_violations() {
  std::lock_guard lock(mutex_);
  violations_.clear();
}

}  // namespace fake
