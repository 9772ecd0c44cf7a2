// The memory of the simulated machine: see device.h.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "device.h"

namespace fake {

namespace {

constexpr size_t kMemoryBytes = size_t{64} << 30;  // of addresses; only what is used takes memory
constexpr size_t kBlockAlignment = 512;
constexpr int kPoison = 0xA5;

size_t round_up(size_t size, size_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

[[noreturn]] void die(const char* call) {
  std::perror(call);
  std::abort();
}

void* map_or_die(int protection, int flags, int fd, size_t size) {
  void* const address = ::mmap(nullptr, size, protection, flags, fd, 0);
  return address == MAP_FAILED ? (die("fake accelerator: mmap"), nullptr) : address;
}

}  // namespace

Machine::Machine() : memory_fd_(::memfd_create("fake accelerator", MFD_CLOEXEC)) {
  if (memory_fd_ < 0 || ::ftruncate(memory_fd_, static_cast<off_t>(kMemoryBytes)) != 0) {
    die("fake accelerator: memfd");
  }
  alias_ = static_cast<std::byte*>(map_or_die(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory_fd_, kMemoryBytes));
  device_memory_ = static_cast<std::byte*>(map_or_die(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, kMemoryBytes));
}

void Machine::note_if_used(const char* kind, Range memory, const StreamId* but) {
  for (int device = 0; device < kNumDevices; ++device) {
    for (int64_t index = 0; index < kStreamsPerDevice; ++index) {
      if (but != nullptr && *but == StreamId{device, index}) {
        continue;
      }
      for (const Operation& operation : streams_[device][index].queue) {
        const auto used = [&](const Range& range) { return range.overlaps(memory); };
        if (std::any_of(operation.memory.begin(), operation.memory.end(), used)) {
          violations_ += std::string(kind) + " memory of " + std::to_string(memory.size) + " bytes was freed while stream " +
                         std::to_string(index) + " of device " + std::to_string(device) + " still uses it\n";
          return;
        }
      }
    }
  }
}

uintptr_t Machine::allocate(StreamId stream, size_t size) {
  size = round_up(size, kBlockAlignment);
  std::lock_guard lock(mutex_);
  std::vector<uintptr_t>& free = free_blocks_[{stream, size}];
  uintptr_t address = 0;
  if (free.empty()) {
    if (used_ + size > kMemoryBytes) {
      throw std::bad_alloc();
    }
    address = reinterpret_cast<uintptr_t>(device_memory_ + used_);
    used_ += size;
    blocks_[address] = {size, stream, true, {}};
  } else {
    address = free.back();
    free.pop_back();
    blocks_.at(address).lent = true;
  }
  ++counters_.device_blocks_lent;
  // Work of the caller's stream that the memory's new owner has to come behind: whoever does not wait for it has his bytes
  // overwritten, and whoever leaves bytes out finds these instead of the right ones of a load before.
  std::byte* const bytes = alias(address);
  push(stream, {[] { return true; }, [bytes, size] { std::memset(bytes, kPoison, size); }, {{address, size}}, 0, 0});
  return address;
}

void Machine::free(uintptr_t address) {
  std::lock_guard lock(mutex_);
  Block& block = blocks_.at(address);
  for (const StreamId other : block.other_streams) {
    const auto event = std::make_shared<Event>();
    record_locked(event, other);
    block_locked(event, block.stream);
  }
  if (block.other_streams.empty()) {
    note_if_used("device", {address, block.size}, &block.stream);
  }
  block.other_streams.clear();
  block.lent = false;
  --counters_.device_blocks_lent;
  free_blocks_[{block.stream, block.size}].push_back(address);
}

void Machine::record_use(uintptr_t address, StreamId stream) {
  std::lock_guard lock(mutex_);
  Block& block = blocks_.at(address);
  if (stream != block.stream) {
    block.other_streams.insert(stream);
  }
}

std::byte* Machine::alias(uintptr_t address) const {
  return alias_ + (address - reinterpret_cast<uintptr_t>(device_memory_));
}

void* Machine::allocate_pinned(size_t size) {
  size = round_up(size, static_cast<size_t>(::sysconf(_SC_PAGESIZE)));
  std::lock_guard lock(mutex_);
  std::vector<void*>& free = free_pinned_[size];
  void* address = nullptr;
  if (free.empty()) {
    address = map_or_die(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, size);
    pinned_[reinterpret_cast<uintptr_t>(address)] = size;
    counters_.pinned_bytes += static_cast<int64_t>(size);
    counters_.peak_pinned_bytes = std::max(counters_.peak_pinned_bytes, counters_.pinned_bytes);
  } else {
    address = free.back();
    free.pop_back();
  }
  ++counters_.pinned_blocks_lent;
  return address;
}

void Machine::free_pinned(void* address) {
  std::lock_guard lock(mutex_);
  const size_t size = pinned_.at(reinterpret_cast<uintptr_t>(address));
  note_if_used("pinned", {reinterpret_cast<uintptr_t>(address), size}, nullptr);
  std::memset(address, kPoison, size);
  --counters_.pinned_blocks_lent;
  free_pinned_[size].push_back(address);
}

void Machine::empty_pinned_cache() {
  std::lock_guard lock(mutex_);
  for (const auto& [size, blocks] : std::exchange(free_pinned_, {})) {
    for (void* const address : blocks) {
      ::munmap(address, size);
      pinned_.erase(reinterpret_cast<uintptr_t>(address));
      counters_.pinned_bytes -= static_cast<int64_t>(size);
    }
  }
}

bool Machine::is_pinned(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  std::lock_guard lock(mutex_);
  const auto after = pinned_.upper_bound(address);
  return after != pinned_.begin() && address < std::prev(after)->first + std::prev(after)->second;
}

void Machine::trim() {
  for (int device = 0; device < kNumDevices; ++device) {
    synchronize_device(device);
  }
  std::lock_guard lock(mutex_);
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  for (const auto& [address, block] : blocks_) {
    if (!block.lent) {
      // Only whole pages can go.
      const uintptr_t begin = round_up(reinterpret_cast<uintptr_t>(alias(address)), page);
      const uintptr_t end = (reinterpret_cast<uintptr_t>(alias(address)) + block.size) / page * page;
      if (begin < end) {
        ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_REMOVE);
      }
    }
  }
}

}  // namespace fake
