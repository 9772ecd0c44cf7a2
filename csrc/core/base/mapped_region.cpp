#include "base/mapped_region.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/align.h"
#include "base/concat.h"
#include "base/error.h"

namespace veturbo {

namespace {

constexpr uint64_t kLargeUser = uint64_t{1} << 20;

// The huge pages in which the bytes begin and end. Those between are theirs alone, and they are many: see kLargeUser.
template <typename Function>
void for_ends(uint64_t offset, uint64_t size, Function function) {
  const uint64_t first = offset / kHugePageSize;
  const uint64_t last = (offset + std::max<uint64_t>(size, 1) - 1) / kHugePageSize;
  function(first);
  if (last != first) {
    function(last);
  }
}

std::byte* map_or_throw(uint64_t size, int protection, int flags, int fd) {
  void* address = ::mmap(nullptr, size, protection, flags, fd, 0);
  if (address != MAP_FAILED) {
    return static_cast<std::byte*>(address);
  }
  if (errno == ENOMEM) {
    throw Error(ErrorKind::kOutOfMemory, concat("not enough memory to map ", size, " bytes"), ENOMEM);
  }
  throw Error::from_errno(errno, "mmap");
}

}  // namespace

MappedRegion MappedRegion::anonymous(uint64_t size) {
  if (size == 0) {
    return {};
  }
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS;
  if (size < kHugePageSize) {
    return {map_or_throw(size, PROT_READ | PROT_WRITE, kFlags, -1), size};
  }
  if (size > UINT64_MAX - 2 * kHugePageSize) {
    throw Error(ErrorKind::kOutOfMemory, concat("not enough memory to map ", size, " bytes"), ENOMEM);
  }
  // mmap() promises only page alignment: map one huge page more and cut off both ends.
  const uint64_t length = align_up(size, page_size());
  std::byte* const base = map_or_throw(length + kHugePageSize, PROT_READ | PROT_WRITE, kFlags, -1);
  const uint64_t head = align_up(reinterpret_cast<uintptr_t>(base), kHugePageSize) - reinterpret_cast<uintptr_t>(base);
  if (head > 0) {
    ::munmap(base, head);
  }
  if (head < kHugePageSize) {
    ::munmap(base + head + length, kHugePageSize - head);
  }
  ::madvise(base + head, length, MADV_HUGEPAGE);  // a hint: kernels without huge pages refuse it, and nothing is lost
  return {base + head, size};
}

MappedRegion MappedRegion::private_file(int fd, uint64_t size) {
  if (size == 0) {
    return {};
  }
  return {map_or_throw(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd), size};
}

MappedRegion::MappedRegion(MappedRegion&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), users_(std::move(other.users_)) {}

MappedRegion& MappedRegion::operator=(MappedRegion&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(users_, other.users_);
  return *this;
}

MappedRegion::~MappedRegion() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

void MappedRegion::add_user(uint64_t offset, uint64_t size) {
  if (!users_) {
    users_ = std::make_unique<std::atomic<uint32_t>[]>(size_ / kHugePageSize + 1);
  }
  for_ends(offset, size, [this](uint64_t block) { users_[block].fetch_add(1, std::memory_order_relaxed); });
}

void MappedRegion::remove_user(uint64_t offset, uint64_t size) noexcept {
  if (size >= kLargeUser) {
    discard(offset, size);
  }
  for_ends(offset, size, [this](uint64_t block) {
    // What the others did with the memory has happened before it is given back.
    if (users_[block].fetch_sub(1, std::memory_order_acq_rel) == 1) {
      const uint64_t begin = block * kHugePageSize;
      discard(begin, std::min(kHugePageSize, align_up(size_, page_size()) - begin));
    }
  });
}

void MappedRegion::wipe_on_fork() noexcept {
  ::madvise(data_, align_up(size_, page_size()), MADV_WIPEONFORK);
}

void MappedRegion::discard(uint64_t offset, uint64_t size) noexcept {
  const uint64_t begin = align_up(offset, page_size());
  const uint64_t end = align_down(offset + size, page_size());
  if (begin < end) {
    ::madvise(data_ + begin, end - begin, MADV_DONTNEED);
  }
}

}  // namespace veturbo
