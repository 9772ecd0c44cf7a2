#include "storage/readable_file.h"

#include "base/concat.h"
#include "base/error.h"

namespace veturbo::storage {

void ReadableFile::read_at(uint64_t offset, std::span<std::byte> out) {
  try {
    if (offset > size_ || out.size() > size_ - offset) {
      throw Error(ErrorKind::kInvalidArgument, concat("a read of ", out.size(), " bytes goes past the end of ", size_, " bytes"))
          .at_offset(offset);
    }
    bytes_read_.fetch_add(out.size(), std::memory_order_relaxed);
    do_read_at(offset, out);
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

MappedRegion ReadableFile::map() const {
  throw Error(ErrorKind::kInvalidArgument, "this kind of storage cannot be mapped into memory").in_file(uri_);
}

}  // namespace veturbo::storage
