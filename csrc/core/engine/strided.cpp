#include "engine/strided.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/concat.h"
#include "base/error.h"

namespace veturbo::engine {

namespace {

// A transposed matrix is copied in tiles of so many rows and columns: each of their cache lines is then fetched once. 32 elements
// of two bytes are a line.
constexpr int64_t kTile = 32;

template <size_t kItemSize>
class Copier {
 public:
  explicit Copier(const StridedMemory& memory) : sizes_(memory.sizes), strides_(memory.strides), rows_(sizes_.size(), 1) {
    for (size_t dim = sizes_.size() - 1; dim > 0; --dim) {
      rows_[dim - 1] = rows_[dim] * sizes_[dim];
    }
  }

  // `count` elements from the one numbered `first` on, of what one index of the dimensions before `dim` leaves.
  void copy(size_t dim, const std::byte* from, int64_t first, int64_t count, std::byte* out) const {
    const int64_t row = rows_[dim];
    while (count > 0) {
      const std::byte* const begin = from + first / row * strides_[dim];
      const int64_t skip = first % row;
      int64_t done = 0;
      if (skip == 0 && count >= row) {
        done = count / row * row;
        copy_rows(dim, begin, count / row, out);
      } else {
        done = std::min(row - skip, count);
        copy(dim + 1, begin, skip, done, out);
      }
      first += done;
      count -= done;
      out += static_cast<size_t>(done) * kItemSize;
    }
  }

 private:
  void copy_rows(size_t dim, const std::byte* from, int64_t count, std::byte* out) const {
    if (dim + 1 == sizes_.size()) {
      copy_line(from, strides_[dim], count, out);
    } else if (dim + 2 == sizes_.size()) {
      copy_matrix(dim, from, count, out);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        copy_rows(dim + 1, from + i * strides_[dim], sizes_[dim + 1], out + static_cast<size_t>(i * rows_[dim]) * kItemSize);
      }
    }
  }

  void copy_matrix(size_t dim, const std::byte* from, int64_t rows, std::byte* out) const {
    const int64_t columns = sizes_[dim + 1];
    const int64_t width = strides_[dim + 1] == static_cast<int64_t>(kItemSize) ? columns : kTile;
    for (int64_t top = 0; top < rows; top += kTile) {
      for (int64_t left = 0; left < columns; left += width) {
        for (int64_t row = top; row < std::min(top + kTile, rows); ++row) {
          copy_line(from + row * strides_[dim] + left * strides_[dim + 1], strides_[dim + 1], std::min(width, columns - left),
                    out + static_cast<size_t>(row * columns + left) * kItemSize);
        }
      }
    }
  }

  static void copy_line(const std::byte* from, int64_t stride, int64_t count, std::byte* out) {
    if (stride == static_cast<int64_t>(kItemSize)) {
      std::memcpy(out, from, static_cast<size_t>(count) * kItemSize);
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(out, from, kItemSize);
      from += stride;
      out += kItemSize;
    }
  }

  const std::vector<int64_t>& sizes_;
  const std::vector<int64_t>& strides_;
  std::vector<int64_t> rows_;  // elements for one index of each dimension
};

void copy_elements(const StridedMemory& memory, uint64_t first, uint64_t count, std::byte* out) {
  const auto copy = [&](const auto& copier) {
    copier.copy(0, memory.data, static_cast<int64_t>(first), static_cast<int64_t>(count), out);
  };
  switch (memory.item_size) {
    case 1:
      return copy(Copier<1>(memory));
    case 2:
      return copy(Copier<2>(memory));
    case 4:
      return copy(Copier<4>(memory));
    case 8:
      return copy(Copier<8>(memory));
    default:
      throw Error(ErrorKind::kInvalidArgument, concat("elements of ", memory.item_size, " bytes are not supported"));
  }
}

}  // namespace

void copy_contiguous(const StridedMemory& memory, uint64_t begin, std::span<std::byte> out) {
  std::array<std::byte, 8> element = {};
  while (!out.empty()) {
    const uint64_t first = begin / memory.item_size;
    const uint64_t skip = begin % memory.item_size;
    uint64_t done = out.size() / memory.item_size * memory.item_size;
    if (skip == 0 && done > 0) {
      copy_elements(memory, first, done / memory.item_size, out.data());
    } else {
      done = std::min<uint64_t>(out.size(), memory.item_size - skip);
      copy_elements(memory, first, 1, element.data());
      std::memcpy(out.data(), element.data() + skip, done);
    }
    begin += done;
    out = out.subspan(done);
  }
}

}  // namespace veturbo::engine
