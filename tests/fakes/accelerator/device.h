#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

// A machine with two accelerators, simulated: memory that the CPU cannot touch, streams that work through their queues in threads
// of their own, late and at random moments, and events. It is stern where real devices merely corrupt data: it notes, as a
// violation, memory that is freed while something queued still uses it. It knows nothing of PyTorch.
namespace fake {

constexpr int kNumDevices = 2;
constexpr int64_t kStreamsPerDevice = 5;  // 0 is the default stream, the others are the pool

struct StreamId {
  int device;
  int64_t index;
  auto operator<=>(const StreamId&) const = default;
};

struct Range {
  uintptr_t begin;
  size_t size;
  bool overlaps(const Range& other) const { return begin < other.begin + other.size && other.begin < begin + size; }
};

struct Event {
  uint64_t recorded = 0;  // how often record() was called
  uint64_t reached = 0;   // the last of these that its stream has come to
};

// What tests may set.
struct Knobs {
  int64_t max_delay_us = 300;  // each copy waits for a random time up to this before it begins
  int64_t fail_copy = 0;       // the copy that fails when it is queued: 1 is the next one, 0 none
  int64_t fail_event = 0;      // the wait for an event that fails, at once, while the work before it goes on
};

// What tests may ask for.
struct Counters {
  int64_t copies = 0;
  int64_t bytes_in_flight = 0;
  int64_t peak_bytes_in_flight = 0;
  int64_t pinned_bytes = 0;  // with what the pinned allocator keeps for later, as in PyTorch's own
  int64_t peak_pinned_bytes = 0;
  int64_t pinned_blocks_lent = 0;
  int64_t device_blocks_lent = 0;
};

class Machine {
 public:
  static Machine& get();

  // Streams. Work is run in a thread of the stream's, in order; `memory` is what it uses.
  void queue(StreamId stream, std::function<void()> work, std::vector<Range> memory);
  // As queue(), late, counted, and refused with a std::runtime_error when it is its turn to fail.
  void queue_copy(StreamId stream, std::function<void()> work, std::vector<Range> memory, int64_t bytes);
  void synchronize(StreamId stream);
  void synchronize_device(int device);
  bool is_idle(StreamId stream);
  StreamId next_in_pool(int device);
  // A held stream begins nothing until it is let go.
  void hold(StreamId stream, bool held);

  // Events.
  void record(const std::shared_ptr<Event>& event, StreamId stream);
  void block(const std::shared_ptr<Event>& event, StreamId stream);
  bool is_reached(const Event& event);
  void synchronize(const Event& event);

  // Device memory: an address that faults, and the one at which the device's own threads find the same bytes. As PyTorch's
  // allocators do, a block that comes back is handed out again at once, to be used behind what its stream still does with it.
  uintptr_t allocate(StreamId stream, size_t size);
  void free(uintptr_t address);
  // A stream other than the block's own uses it; the block's own will wait for it before the memory is used again.
  void record_use(uintptr_t address, StreamId stream);
  std::byte* alias(uintptr_t address) const;

  // Pinned memory: the CPU's, but of this machine's devices.
  void* allocate_pinned(size_t size);
  void free_pinned(void* address);
  void empty_pinned_cache();
  bool is_pinned(const void* address);

  Knobs knobs();
  void set_knobs(const Knobs& knobs);
  Counters counters();
  // Peaks begin anew from the present values.
  void reset_counters();
  void seed(uint64_t seed);
  std::string violations();
  void clear_violations();
  // Gives the bytes of all blocks that nobody has back to the system.
  void trim();

 private:
  struct Operation {
    std::function<bool()> ready;
    std::function<void()> work;
    std::vector<Range> memory;
    int64_t bytes;
    int64_t delay_us;
  };
  struct Stream {
    std::deque<Operation> queue;  // the first one may be running
    bool started = false;
    bool held = false;
  };
  struct Block {
    size_t size;
    StreamId stream;
    bool lent;
    std::set<StreamId> other_streams;
  };

  Machine();
  void push(StreamId stream, Operation operation);
  [[noreturn]] void run(StreamId stream);
  void record_locked(const std::shared_ptr<Event>& event, StreamId stream);
  void block_locked(const std::shared_ptr<Event>& event, StreamId stream);
  void note_if_used(const char* kind, Range memory, const StreamId* but);

  std::mutex mutex_;  // over all that follows
  std::condition_variable changed_;
  Stream streams_[kNumDevices][kStreamsPerDevice];
  int64_t next_in_pool_[kNumDevices] = {};
  std::mt19937_64 random_{1};

  int memory_fd_;
  std::byte* device_memory_;  // inaccessible
  std::byte* alias_;
  size_t used_ = 0;
  std::map<uintptr_t, Block> blocks_;
  std::map<std::pair<StreamId, size_t>, std::vector<uintptr_t>> free_blocks_;

  std::map<uintptr_t, size_t> pinned_;  // lent and kept
  std::map<size_t, std::vector<void*>> free_pinned_;

  Knobs knobs_;
  Counters counters_;
  std::string violations_;
};

}  // namespace fake
