// Reads a file with so many threads, in chunks of so many bytes, each thread by plain pread on a handle of its own: what a loader
// does that is told how to read, once it is told right.
//
//   fixed_readers FILE THREADS CHUNK_BYTES   prints {"seconds": seconds}
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::_Exit(1);
}

int open_file(const char* path) {
  const int fd = open(path, O_RDONLY);
  if (fd < 0) fail(path);
  return fd;
}

// Touched already: that fresh memory costs time as well is what limit.cpp shows.
char* huge_pages(size_t size) {
  void* mapped = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) fail("mmap");
  auto* memory = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(mapped) + kHugePage - 1) / kHugePage * kHugePage);
  madvise(memory, size, MADV_HUGEPAGE);
  for (size_t i = 0; i < size; i += 4096) memory[i] = 1;
  return memory;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: fixed_readers FILE THREADS CHUNK_BYTES\n");
    return 2;
  }
  const char* const path = argv[1];
  const size_t chunk = static_cast<size_t>(std::atoll(argv[3]));
  struct stat status;
  if (stat(path, &status) != 0) fail(path);
  const auto size = static_cast<size_t>(status.st_size);
  char* const memory = huge_pages(size);
  std::atomic<size_t> next{0};
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < std::atoi(argv[2]); ++i) {
    threads.emplace_back([&] {
      const int fd = open_file(path);
      for (size_t first; (first = next.fetch_add(chunk)) < size;) {
        const size_t last = std::min(first + chunk, size);
        while (first < last) {
          const ssize_t got = pread(fd, memory + first, last - first, static_cast<off_t>(first));
          if (got <= 0) fail("pread");
          first += static_cast<size_t>(got);
        }
      }
      close(fd);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("{\"seconds\": %.6f}\n", seconds.count());
}
