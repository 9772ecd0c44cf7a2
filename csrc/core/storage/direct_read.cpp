#include "storage/direct_read.h"

#include <algorithm>
#include <cstring>

#include "base/align.h"

namespace veturbo::storage {

DirectRead::DirectRead(uint64_t offset, std::span<std::byte> out, uint64_t memory_alignment)
    : offset_(align_down(offset, kDirectBlockBytes)), skipped_(offset - offset_), out_(out) {
  const uint64_t end = skipped_ + out.size();
  const uint64_t whole = align_up(end, kDirectBlockBytes);
  if (whole <= buffer_.size()) {
    head_ = whole;
    add_part(buffer_.data(), whole);
    return;
  }
  head_ = skipped_ == 0 ? 0 : kDirectBlockBytes;
  std::byte* const place = out.data() + (head_ - skipped_);
  shift_ = align_up(reinterpret_cast<uintptr_t>(place), memory_alignment) - reinterpret_cast<uintptr_t>(place);
  const uint64_t tail = (end == whole ? 0 : kDirectBlockBytes) + (shift_ == 0 ? 0 : kDirectBlockBytes);
  middle_ = whole - head_ - tail;
  add_part(buffer_.data(), head_);
  add_part(place + shift_, middle_);
  add_part(buffer_.data() + head_, tail);
}

size_t DirectRead::put_in_place(size_t got) {
  if (got <= skipped_) {
    return 0;
  }
  const size_t wanted = std::min(got - skipped_, out_.size());
  const size_t from_head = std::min(wanted, head_ - skipped_);
  const size_t from_middle = std::min(wanted - from_head, middle_);
  const size_t from_tail = wanted - from_head - from_middle;
  std::byte* const place = out_.data() + from_head;
  std::memcpy(out_.data(), buffer_.data() + skipped_, from_head);
  if (shift_ != 0) {
    std::memmove(place, place + shift_, from_middle);
  }
  std::memcpy(place + from_middle, buffer_.data() + head_, from_tail);
  return wanted;
}

void DirectRead::add_part(std::byte* memory, size_t size) {
  if (size > 0) {
    parts_[num_parts_++] = {memory, size};
  }
}

}  // namespace veturbo::storage
