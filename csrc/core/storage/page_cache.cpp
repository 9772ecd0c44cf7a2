#include "storage/page_cache.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "base/align.h"

// Two ways to ask: cachestat(2), since Linux 6.5, counts the pages of a whole file in one call; before it, mincore(2) on a
// mapping, here at sample pages only. mincore answers "all there" to whoever may not write the file, which errs on the side of
// the page cache.
namespace veturbo::storage {

namespace {

std::optional<double> share_by_cachestat(int fd, uint64_t begin, uint64_t size) {
  constexpr long kCachestat = 451;  // the same number on every architecture; older headers lack its name
  struct {
    uint64_t offset;
    uint64_t length;
  } range = {begin, size};
  struct {
    uint64_t cached;
    uint64_t dirty;
    uint64_t writeback;
    uint64_t evicted;
    uint64_t recently_evicted;
  } pages = {};
  if (::syscall(kCachestat, fd, &range, &pages, 0) != 0) {
    return std::nullopt;
  }
  return std::min(1.0, static_cast<double>(pages.cached * page_size()) / static_cast<double>(size));
}

std::optional<double> share_by_mincore(int fd, uint64_t begin, uint64_t size) {
  constexpr uint64_t kSamples = 256;
  void* const mapping = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(begin));
  if (mapping == MAP_FAILED) {
    return std::nullopt;
  }
  const uint64_t pages = align_up(size, page_size()) / page_size();
  const uint64_t samples = std::min(pages, kSamples);
  uint64_t asked = 0;
  uint64_t cached = 0;
  for (uint64_t i = 0; i < samples; ++i) {
    unsigned char resident = 0;
    const uint64_t page = pages * i / samples;
    if (::mincore(static_cast<char*>(mapping) + page * page_size(), page_size(), &resident) == 0) {
      ++asked;
      cached += resident & 1U;
    }
  }
  ::munmap(mapping, size);
  if (asked == 0) {
    return std::nullopt;
  }
  return static_cast<double>(cached) / static_cast<double>(asked);
}

double cached_share_of(int fd, uint64_t begin, uint64_t size) {
  std::optional<double> share = share_by_cachestat(fd, begin, size);
  if (!share) {
    share = share_by_mincore(fd, begin, size);
  }
  return share.value_or(1);
}

}  // namespace

double cached_share(int fd, uint64_t size) {
  return size == 0 ? 1 : cached_share_of(fd, 0, size);
}

bool is_page_cached(int fd, uint64_t offset) {
  return cached_share_of(fd, offset, page_size()) > 0;
}

}  // namespace veturbo::storage
