// Tensors in any order of elements, made contiguous piece by piece.
#include "engine/strided.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "testing/errors.h"
#include "testing/memory_files.h"

namespace veturbo::engine {
namespace {

using testing::pattern;

struct Layout {
  std::string name;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;  // in elements
};

// The tensor's bytes, element by element.
std::vector<std::byte> contiguous(const std::vector<std::byte>& memory, const Layout& layout, int64_t item_size) {
  std::vector<std::byte> bytes;
  std::vector<int64_t> index(layout.sizes.size(), 0);
  for (bool more = true; more;) {
    int64_t element = 0;
    for (size_t dim = 0; dim < index.size(); ++dim) {
      element += index[dim] * layout.strides[dim];
    }
    bytes.insert(bytes.end(), memory.begin() + element * item_size, memory.begin() + (element + 1) * item_size);
    more = false;
    for (size_t dim = index.size(); dim-- > 0 && !more;) {
      more = ++index[dim] < layout.sizes[dim];
      index[dim] = more ? index[dim] : 0;
    }
  }
  return bytes;
}

class Strided : public ::testing::TestWithParam<std::tuple<Layout, int64_t>> {};

TEST_P(Strided, BecomesContiguousWhateverIsAskedFor) {
  const auto& [layout, item_size] = GetParam();
  const std::vector<std::byte> memory = pattern(static_cast<size_t>(40'000 * item_size));
  std::vector<int64_t> strides = layout.strides;
  for (int64_t& stride : strides) {
    stride *= item_size;
  }
  const StridedMemory strided = {memory.data(), static_cast<uint64_t>(item_size), layout.sizes, strides};
  const std::vector<std::byte> expected = contiguous(memory, layout, item_size);
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{64}, size_t{1000}, size_t{4096}, expected.size()}) {
    std::vector<std::byte> found(expected.size() + 1, std::byte{0xEE});
    for (size_t begin = 0; begin < expected.size(); begin += piece) {
      copy_contiguous(strided, begin, std::span(found).subspan(begin, std::min(piece, expected.size() - begin)));
    }
    ASSERT_EQ(found.back(), std::byte{0xEE});
    found.pop_back();
    ASSERT_TRUE(found == expected) << "in pieces of " << piece;
  }
}

INSTANTIATE_TEST_SUITE_P(Grid, Strided,
                         ::testing::Combine(::testing::Values(Layout{"EverySecond", {501}, {2}},
                                                              Layout{"Transposed", {75, 130}, {1, 75}},
                                                              Layout{"Columns", {70, 33}, {100, 1}},
                                                              Layout{"ChannelsLast", {3, 5, 7, 11}, {385, 1, 55, 5}},
                                                              Layout{"Expanded", {9, 40, 6}, {0, 6, 1}},
                                                              Layout{"OneElementRows", {50, 1, 20}, {1, 999, 50}}),
                                            ::testing::Values(1, 2, 4, 8)),
                         [](const auto& info) { return std::get<0>(info.param).name + std::to_string(std::get<1>(info.param)); });

TEST(StridedElements, OfOtherSizesAreRefused) {
  const std::vector<std::byte> memory(12);
  std::vector<std::byte> out(3);
  EXPECT_EQ(testing::error_of([&] { copy_contiguous({memory.data(), 3, {2}, {6}}, 0, out); }).cause(),
            "elements of 3 bytes are not supported");
}

}  // namespace
}  // namespace veturbo::engine
