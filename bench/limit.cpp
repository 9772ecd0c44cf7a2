// How fast a file can be had in memory on this machine, whatever the loader: the mark to hold loaders against.
//
// Threads pread the file, chunk by chunk from one shared counter, into fresh memory of huge pages. There is no parsing, no
// tensor, no PyTorch. Then as many threads read every byte, summing it up into the checksum that one_load.py makes of the
// tensors.
//
//   limit FILE THREADS   prints {"returned": seconds, "touched": seconds since the same start, "checksum": number}
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kChunk = size_t{4} << 20;
constexpr size_t kSummedPage = 4096;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::_Exit(1);  // from any thread, without waiting for the others
}

// Runs `work(first, last)` over [0, size) in pieces, on `count` threads.
template <typename Work>
void in_chunks(size_t size, int count, Work work) {
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&] {
      for (size_t first; (first = next.fetch_add(kChunk)) < size;) work(first, std::min(first + kChunk, size));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

char* fresh_huge_pages(size_t size) {
  void* mapped = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) fail("mmap");
  const auto address = (reinterpret_cast<uintptr_t>(mapped) + kHugePage - 1) / kHugePage * kHugePage;
  auto* memory = reinterpret_cast<char*>(address);
  madvise(memory, size, MADV_HUGEPAGE);  // refused where the kernel has none: then small pages are this machine's limit
  return memory;
}

// As touch_fresh_memory() in measure.py, which says why.
void touch_fresh_memory(const char* path) {
  struct stat status;
  if (stat(path, &status) != 0) fail(path);
  const size_t size = static_cast<size_t>(status.st_size) + (size_t{512} << 20);
  char* memory = fresh_huge_pages(size);
  for (size_t i = 0; i < size; i += kSummedPage) memory[i] = 1;
  munmap(memory, size);
}

void read_range(int fd, char* memory, size_t first, size_t last) {
  while (first < last) {
    const ssize_t got = pread(fd, memory + first, last - first, static_cast<off_t>(first));
    if (got < 0) fail("pread");
    if (got == 0) {
      errno = EIO;
      fail("the file shrank");
    }
    first += static_cast<size_t>(got);
  }
}

// The sum over all pages of (1 + index of the page) * (sum of its 64-bit words), modulo 2^64.
uint64_t sum_pages(const char* data, size_t size, int threads) {
  std::atomic<uint64_t> total{0};
  in_chunks(size, threads, [&](size_t first, size_t last) {
    uint64_t sum = 0;
    for (size_t page = first; page < last; page += kSummedPage) {
      uint64_t words = 0;
      for (size_t i = page; i < std::min(page + kSummedPage, last); i += sizeof(uint64_t)) {
        uint64_t word;
        std::memcpy(&word, data + i, sizeof(word));
        words += word;
      }
      sum += words * (page / kSummedPage + 1);
    }
    total += sum;
  });
  return total;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s FILE THREADS\n", argv[0]);
    return 2;
  }
  const int threads = std::max(1, std::atoi(argv[2]));
  touch_fresh_memory(argv[1]);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };

  const int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(argv[1]);
  struct stat status;
  if (fstat(fd, &status) != 0) fail(argv[1]);
  const auto size = static_cast<size_t>(status.st_size);
  char* memory = fresh_huge_pages(size);
  in_chunks(size, threads, [&](size_t first, size_t last) { read_range(fd, memory, first, last); });
  const double returned = elapsed();

  // A safetensors file begins with the length of its header; the tensors follow that without a gap.
  uint64_t header;
  std::memcpy(&header, memory, sizeof(header));
  const size_t data = sizeof(header) + header;
  if (size < sizeof(header) || data > size || (size - data) % sizeof(uint64_t) != 0) {
    std::fprintf(stderr, "%s: not a safetensors file of the bench\n", argv[1]);
    return 1;
  }
  const uint64_t checksum = sum_pages(memory + data, size - data, threads);
  std::printf("{\"returned\": %.6f, \"touched\": %.6f, \"checksum\": %llu}\n", returned, elapsed(),
              static_cast<unsigned long long>(checksum));
  return 0;
}
