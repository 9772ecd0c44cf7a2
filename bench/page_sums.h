// Touching memory the way a model's first pass over its weights does, and the checksum that this makes: what limit.cpp and
// touch.cpp share, so that every loader, and none at all, is held to the same bytes.
//
// The tensors one after another are taken as one run of bytes, cut into pages of 4 KiB. The checksum is the sum over all pages of
// (1 + index of the page) * (sum of its 64-bit words), modulo 2^64: a byte that differs, or a page that is not in its place,
// changes it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace bench {

constexpr size_t kSummedPage = 4096;

// Runs `work(first, last)` over [0, size) in pieces, on `count` threads.
template <typename Work>
void in_chunks(size_t size, size_t chunk, int count, Work work) {
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&] {
      for (size_t first; (first = next.fetch_add(chunk)) < size;) work(first, std::min(first + chunk, size));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A tensor's bytes: any number of whole 64-bit words.
struct Bytes {
  const char* data;
  size_t size;
};

inline uint64_t sum_words(const char* data, size_t size) {
  uint64_t sum = 0;
  for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, data + i, sizeof(word));
    sum += word;
  }
  return sum;
}

inline uint64_t sum_pages(const std::vector<Bytes>& tensors, int threads) {
  std::vector<size_t> begins;  // of the tensors, in the run of all bytes
  size_t total = 0;
  for (const Bytes& tensor : tensors) {
    begins.push_back(total);
    total += tensor.size;
  }
  std::atomic<uint64_t> checksum{0};
  in_chunks(total, size_t{4} << 20, threads, [&](size_t first, size_t last) {
    auto tensor = static_cast<size_t>(std::upper_bound(begins.begin(), begins.end(), first) - begins.begin()) - 1;
    uint64_t sum = 0;
    while (first < last) {
      const size_t within = first - begins[tensor];
      const size_t page = first / kSummedPage;
      const size_t stop = std::min({last, (page + 1) * kSummedPage, begins[tensor] + tensors[tensor].size});
      sum += (page + 1) * sum_words(tensors[tensor].data + within, stop - first);
      first = stop;
      while (tensor + 1 < tensors.size() && first >= begins[tensor + 1]) ++tensor;
    }
    checksum += sum;
  });
  return checksum;
}

}  // namespace bench
