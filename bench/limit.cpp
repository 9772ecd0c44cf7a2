// How fast a file can be had in memory on this machine, whatever the loader: the mark to hold loaders against. There is no
// parsing, no tensor, no PyTorch.
//
//   limit FILE THREADS [WAY [BLOCK]]   prints {"returned": seconds, "touched": seconds since the same start, "checksum": number}
//
// WAY is one of
//   buffered  threads pread the file, block by block from one shared counter, into fresh memory of huge pages (the default)
//   direct    the same past the page cache (O_DIRECT); exit status 3: this file system has no direct I/O
//   mapped    a private mapping of the file, whose pages the threads populate
//   plain     one read of the whole file into memory of malloc, and nothing else: for small files
// BLOCK is in bytes (4 MiB). Once the file is there, as many threads read every byte, summing it up into the checksum that
// one_load.py makes of the tensors (page_sums.h). `plain` touches no memory before its clock starts; the others do.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "page_sums.h"
#include "spare_memory.h"

namespace {

constexpr size_t kSmallPage = 4096;  // also what direct reads are aligned to
constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kNoDirectIo = 3;

[[noreturn]] void fail(const char* what, int status = 1) {
  std::perror(what);
  std::_Exit(status);  // from any thread, without waiting for the others
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
  bench::ask_for_spare_memory();
  struct stat status;
  if (stat(path, &status) != 0) fail(path);
  const size_t size = static_cast<size_t>(status.st_size) + (size_t{512} << 20);
  char* memory = fresh_huge_pages(size);
  for (size_t i = 0; i < size; i += kSmallPage) memory[i] = 1;
  munmap(memory, size);
}

// A direct read asks for whole pages at the end of the file, too, and gets less.
void read_range(int fd, char* memory, size_t first, size_t last, size_t alignment) {
  while (first < last) {
    const size_t wanted = (last - first + alignment - 1) / alignment * alignment;
    const ssize_t got = pread(fd, memory + first, wanted, static_cast<off_t>(first));
    if (got < 0) fail("pread");
    if (got == 0) {
      errno = EIO;
      fail("the file shrank");
    }
    first += static_cast<size_t>(got);
  }
}

char* populated(int fd, size_t size, size_t block, int threads) {
  void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  if (mapped == MAP_FAILED) fail("mmap");
  auto* memory = static_cast<char*>(mapped);
  bench::in_chunks(size, block, threads, [&](size_t first, size_t last) {
    if (madvise(memory + first, last - first, MADV_POPULATE_READ) != 0) fail("madvise");
  });
  return memory;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 2 ? std::atoi(argv[2]) : 0;
  const std::string_view way = argc > 3 ? argv[3] : "buffered";
  const size_t block = (argc > 4 ? std::strtoull(argv[4], nullptr, 10) : size_t{4} << 20) / kSmallPage * kSmallPage;
  const bool direct = way == "direct";
  const bool mapped = way == "mapped";
  const bool plain = way == "plain";
  if (argc > 5 || threads <= 0 || block == 0 || (way != "buffered" && !direct && !mapped && !plain)) {
    std::fprintf(stderr, "usage: %s FILE THREADS [buffered|direct|mapped|plain [BLOCK]]\n", argv[0]);
    return 2;
  }
  if (!plain) touch_fresh_memory(argv[1]);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };

  const int fd = open(argv[1], O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
  if (fd < 0) fail(argv[1], direct && errno == EINVAL ? kNoDirectIo : 1);
  struct stat status;
  if (fstat(fd, &status) != 0) fail(argv[1]);
  const auto size = static_cast<size_t>(status.st_size);
  char* memory = nullptr;
  if (mapped) {
    memory = populated(fd, size, block, threads);
  } else if (plain) {
    memory = static_cast<char*>(std::malloc(size));
    if (memory == nullptr) fail("malloc");
    read_range(fd, memory, 0, size, 1);
  } else {
    memory = fresh_huge_pages(size);
    const size_t alignment = direct ? kSmallPage : 1;
    bench::in_chunks(size, block, threads, [&](size_t first, size_t last) { read_range(fd, memory, first, last, alignment); });
  }
  const double returned = elapsed();

  // A safetensors file begins with the length of its header; the tensors follow that without a gap.
  uint64_t header = 0;
  if (size >= sizeof(header)) std::memcpy(&header, memory, sizeof(header));
  const size_t data = sizeof(header) + header;
  if (size < sizeof(header) || data > size || (size - data) % sizeof(uint64_t) != 0) {
    std::fprintf(stderr, "%s: not a safetensors file of the bench\n", argv[1]);
    return 1;
  }
  const uint64_t checksum = bench::sum_pages({{memory + data, size - data}}, threads);
  std::printf("{\"returned\": %.9f, \"touched\": %.9f, \"checksum\": %llu}\n", returned, elapsed(),
              static_cast<unsigned long long>(checksum));
  return 0;
}
