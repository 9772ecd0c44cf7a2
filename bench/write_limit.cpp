// How fast memory can be had in a file on this machine, whatever the saver: the mark to hold saves against.
//
// Threads pwrite aligned memory, block by block from one shared counter, into a fresh file. There is no header, no tensor,
// no PyTorch, and in direct mode no page cache.
//
//   write_limit FILE BYTES THREADS BLOCK direct|buffered   prints {"returned": seconds, "durable": seconds since the same start}
//
// The file is removed again. Exit status 3: this file system has no direct I/O.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

#include "spare_memory.h"

namespace {

constexpr size_t kAlignment = 4096;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kNoDirectIo = 3;

const char* path = nullptr;  // to be removed at the end, however it comes

[[noreturn]] void fail(const char* what, int status = 1) {
  std::perror(what);
  unlink(path);
  std::_Exit(status);  // from any thread, without waiting for the others
}

// What is written: touched before the clock starts, and not compressible by a disk that would try.
char* make_content(size_t size) {
  void* mapped = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) fail("mmap");
  auto* memory = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(mapped) + kHugePage - 1) / kHugePage * kHugePage);
  madvise(memory, size, MADV_HUGEPAGE);  // refused where the kernel has none
  uint64_t state = 1;
  for (size_t i = 0; i < size; i += sizeof(state)) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    const uint64_t word = state ^ (state >> 29);
    std::memcpy(memory + i, &word, sizeof(word));
  }
  return memory;
}

// As touch_fresh_file_memory() in measure.py, which says why.
void touch_fresh_file_memory(const char* memory, size_t size) {
  constexpr size_t kBlock = size_t{8} << 20;
  const int fd = memfd_create("touched", MFD_CLOEXEC);  // /dev/shm may have no room
  if (fd < 0) fail("memfd_create");
  for (size_t done = 0; done < size + (size_t{512} << 20); done += kBlock) {
    if (write(fd, memory, std::min(kBlock, size)) < 0) fail("write");
  }
  close(fd);
}

void write_block(int fd, const char* memory, size_t first, size_t last) {
  while (first < last) {
    const ssize_t put = pwrite(fd, memory + first, last - first, static_cast<off_t>(first));
    if (put <= 0) fail("pwrite");
    first += static_cast<size_t>(put);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc == 6 ? argv[5] : "";
  const bool direct = mode == "direct";
  const size_t size = argc == 6 ? std::strtoull(argv[2], nullptr, 10) / kAlignment * kAlignment : 0;
  const int threads = argc == 6 ? std::atoi(argv[3]) : 0;
  const size_t block = argc == 6 ? std::strtoull(argv[4], nullptr, 10) / kAlignment * kAlignment : 0;
  if (size == 0 || threads <= 0 || block == 0 || (!direct && mode != "buffered")) {
    std::fprintf(stderr, "usage: %s FILE BYTES THREADS BLOCK direct|buffered\n", argv[0]);
    return 2;
  }
  path = argv[1];
  bench::ask_for_spare_memory();
  const char* memory = make_content(size);
  unlink(path);
  if (!direct) touch_fresh_file_memory(memory, size);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };

  const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | (direct ? O_DIRECT : 0), 0600);
  if (fd < 0) fail(path, direct && errno == EINVAL ? kNoDirectIo : 1);
  // Direct writes that had to allocate as well would wait for one another.
  const auto length = static_cast<off_t>(size);
  const bool reserved = direct && fallocate(fd, 0, 0, length) == 0;
  if (!reserved && ftruncate(fd, length) != 0) fail("ftruncate");
  std::atomic<size_t> next{0};
  std::vector<std::thread> writers;
  for (int i = 0; i < threads; ++i) {
    writers.emplace_back([&] {
      for (size_t first; (first = next.fetch_add(block)) < size;) write_block(fd, memory, first, std::min(first + block, size));
    });
  }
  for (std::thread& writer : writers) writer.join();
  const double returned = elapsed();
  if (fsync(fd) != 0) fail("fsync");
  std::printf("{\"returned\": %.6f, \"durable\": %.6f}\n", returned, elapsed());
  close(fd);
  unlink(path);
  return 0;
}
