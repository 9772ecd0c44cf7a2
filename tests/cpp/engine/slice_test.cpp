#include "engine/slice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "base/error.h"

namespace veturbo::engine {
namespace {

// Every index of a box, the last dimension fastest.
std::vector<std::vector<uint64_t>> indices(const std::vector<uint64_t>& box) {
  std::vector<std::vector<uint64_t>> all = {{}};
  for (const uint64_t size : box) {
    std::vector<std::vector<uint64_t>> longer;
    for (const std::vector<uint64_t>& index : all) {
      for (uint64_t i = 0; i < size; ++i) {
        longer.push_back(index);
        longer.back().push_back(i);
      }
    }
    all = longer;
  }
  return all;
}

struct Case {
  std::vector<uint64_t> shape;
  View view;
  uint64_t item_bytes;

  uint64_t num_elements() const { return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>()); }
};

// What one dimension is indexed by: `count` elements, `step` apart, from `start` on.
struct Selection {
  uint64_t start;
  uint64_t count;
  uint64_t step = 1;
};

Case select(std::vector<uint64_t> shape, const std::vector<Selection>& selections, uint64_t item_bytes) {
  View view = {0, {}, std::vector<uint64_t>(shape.size())};
  uint64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    view.offset += selections[i].start * stride;
    view.strides[i] = selections[i].step * stride;
    stride *= shape[i];
  }
  for (const Selection& selection : selections) {
    view.sizes.push_back(selection.count);
  }
  return {std::move(shape), std::move(view), item_bytes};
}

// Where the wanted elements begin in the tensor, in bytes, in the order of the result.
std::vector<uint64_t> wanted(const Case& part) {
  std::vector<uint64_t> offsets;
  for (const std::vector<uint64_t>& index : indices(part.view.sizes)) {
    offsets.push_back(std::inner_product(index.begin(), index.end(), part.view.strides.begin(), part.view.offset) *
                      part.item_bytes);
  }
  return offsets;
}

// The same, as the plan finds them in what it reads.
std::vector<uint64_t> found(const Case& part, const SlicePlan& plan) {
  std::vector<uint64_t> offsets;
  for (const std::vector<uint64_t>& index : indices(part.view.sizes)) {
    const uint64_t at = std::inner_product(index.begin(), index.end(), plan.strides.begin(), uint64_t{0}) * part.item_bytes;
    offsets.push_back(plan.block_offsets.at(at / plan.block_size) + at % plan.block_size);
  }
  return offsets;
}

SlicePlan plan_of(const Case& part, uint64_t max_gap) {
  return plan_slice(part.view, part.num_elements(), part.item_bytes, max_gap);
}

TEST(Slice, FindsEveryElementWhateverIsWanted) {
  std::mt19937 random(11);
  for (int round = 0; round < 2000; ++round) {
    std::vector<uint64_t> shape;
    std::vector<Selection> selections;
    for (size_t i = random() % 5; i > 0; --i) {
      const uint64_t size = 1 + random() % 6;
      const uint64_t start = random() % size;
      const uint64_t step = 1 + random() % 4;
      shape.push_back(size);
      selections.push_back({start, 1 + random() % ((size - start + step - 1) / step), step});
    }
    const Case part = select(shape, selections, uint64_t{1} << (random() % 4));
    const uint64_t max_gap = random() % 3 == 0 ? 0 : random() % 64;
    const SlicePlan plan = plan_of(part, max_gap);

    const std::vector<uint64_t> offsets = wanted(part);
    EXPECT_EQ(found(part, plan), offsets);
    EXPECT_TRUE(std::is_sorted(plan.block_offsets.begin(), plan.block_offsets.end()));
    EXPECT_EQ(plan.is_dense, plan.block_size * plan.block_offsets.size() == offsets.size() * part.item_bytes);
    for (size_t i = 1; i < offsets.size(); ++i) {
      const auto block_of = [&](uint64_t offset) {
        return std::upper_bound(plan.block_offsets.begin(), plan.block_offsets.end(), offset);
      };
      if (block_of(offsets[i]) == block_of(offsets[i - 1])) {
        EXPECT_LE(offsets[i] - offsets[i - 1] - part.item_bytes, max_gap);
      }
    }
  }
}

TEST(Slice, RowsAreOneBlock) {
  const SlicePlan plan = plan_of(select({1000, 64, 2}, {{10, 20}, {0, 64}, {0, 2}}, 4), 0);
  EXPECT_EQ(plan.block_offsets, std::vector<uint64_t>({10 * 64 * 2 * 4}));
  EXPECT_EQ(plan.block_size, 20U * 64 * 2 * 4);
  EXPECT_TRUE(plan.is_dense);
}

TEST(Slice, ColumnsAreABlockARowWhereTheGapIsLarge) {
  const SlicePlan plan = plan_of(select({3, 4096}, {{0, 3}, {100, 8}}, 2), 4096);
  EXPECT_EQ(plan.block_offsets, std::vector<uint64_t>({200, 8392, 16584}));
  EXPECT_EQ(plan.block_size, 16U);
  EXPECT_TRUE(plan.is_dense);
}

TEST(Slice, MoreBlocksThanAnybodyKeepsAccountOfAreJoined) {
  const SlicePlan plan = plan_of(select({kMaxBlocks, 2, 512}, {{0, kMaxBlocks}, {0, 2}, {0, 1}}, 2), 0);
  EXPECT_EQ(plan.block_offsets.size(), kMaxBlocks) << "one for two, and the gap between those two is read over";
  EXPECT_EQ(plan.block_size, 2U * 512 + 2);
  EXPECT_EQ(plan.strides, std::vector<uint64_t>({513, 512, 1}));
}

TEST(Slice, AScalarIsOneBlock) {
  const SlicePlan plan = plan_of(select({}, {}, 8), 0);
  EXPECT_EQ(plan.block_offsets, std::vector<uint64_t>({0}));
  EXPECT_EQ(plan.block_size, 8U);
}

TEST(Slice, NothingWantedIsNothingRead) {
  EXPECT_TRUE(plan_of(select({4, 5}, {{0, 4}, {5, 0}}, 4), 0).block_offsets.empty());
  EXPECT_TRUE(plan_of(select({4, 5}, {{2, 0}, {0, 5}}, 4), 1000).block_offsets.empty());
  EXPECT_TRUE(plan_of(select({0, 5}, {{0, 0}, {0, 5}}, 4), 0).block_offsets.empty());
}

TEST(Slice, RefusesWhatIsNotInTheTensorOrNotInItsOrder) {
  const uint64_t huge = uint64_t{1} << 63;
  const std::vector<View> views = {
      {20, {1}, {1}},   {0, {21}, {1}},      {1, {20}, {1}},   {0, {4, 5}, {1, 4}}, {0, {2, 2}, {0, 1}},    {0, {2, 3}, {2, 1}},
      {huge, {1}, {1}}, {0, {huge}, {huge}}, {0, {3}, {huge}}, {huge, {huge}, {2}}, {0, {huge, 2}, {2, 1}},
  };
  for (const View& view : views) {
    EXPECT_THROW(plan_slice(view, 20, 4, 0), Error) << view.offset;
  }
  EXPECT_THROW(plan_slice({0, {1, 2}, {1}}, 20, 4, 0), Error) << "a stride too few";
  EXPECT_EQ(plan_slice({19, {1, 1}, {huge, 0}}, 20, 4, 0).block_offsets, std::vector<uint64_t>({76})) << "one has no next";
}

}  // namespace
}  // namespace veturbo::engine
