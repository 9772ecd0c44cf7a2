// The seeds, and all that fuzzing has found, as tests: each file of tests/data/fuzz/TARGET, and all its beginnings.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/environment.h"
#include "targets.h"
#include "testing/temporary_directory.h"

namespace veturbo::fuzz {
namespace {

class Replay : public ::testing::TestWithParam<Target> {};

TEST_P(Replay, HoldsForEachFileAndItsBeginnings) {
  const std::filesystem::path folder = std::filesystem::path(environment_variable("FUZZ_DATA")) / GetParam().name;
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string input = testing::read_text(entry.path().string());
    GetParam().run(input);
    for (size_t size = 0; size < std::min<size_t>(input.size(), 2048); ++size) {
      try {
        GetParam().run(std::string_view(input).substr(0, size));
      } catch (const std::exception& error) {
        FAIL() << entry.path() << ", its first " << size << " bytes: " << error.what();
      }
    }
    ++files;
  }
  EXPECT_GT(files, 0U) << folder;
}

INSTANTIATE_TEST_SUITE_P(Fuzz, Replay, ::testing::ValuesIn(kTargets),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace veturbo::fuzz
