#include "base/error.h"

#include <gtest/gtest.h>

#include <string>

namespace veturbo {
namespace {

TEST(Error, NamesFileTensorCauseAndOffsetInThatOrder) {
  const Error error = Error(ErrorKind::kFormat, "is damaged").at_offset(12).in_file("model").in_tensor("weight");
  EXPECT_STREQ(error.what(), "model: tensor \"weight\": is damaged (at byte 12)");
}

TEST(Error, KeepsTheContextThatWasSaidFirst) {
  const Error error =
      Error(ErrorKind::kIo, "x").at_offset(1).at_offset(2).in_file("a").in_file("b").in_tensor("c").in_tensor("d");
  EXPECT_EQ(error.offset(), 1);
  EXPECT_EQ(error.file(), "a");
  EXPECT_EQ(error.tensor(), "c");
}

TEST(Error, SaysOfASystemCallWhichItWasAndWhy) {
  const Error error = Error::from_errno(ENOSPC, "write");
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_EQ(error.code(), ENOSPC);
  EXPECT_STREQ(error.what(), "write: No space left on device");
  EXPECT_STREQ(Error::from_errno(ENOENT, "").what(), "No such file or directory");
}

TEST(Error, CanBeShownWhateverTheFileSays) {
  const std::string name = "a\nERROR: forged\x1b[2J";
  const Error error = Error(ErrorKind::kFormat, "unknown dtype \"" + name + "\"").in_file(name).in_tensor(name);
  const std::string shown = "a\\x0aERROR: forged\\x1b[2J";
  EXPECT_EQ(error.message(), shown + ": tensor \"" + shown + "\": unknown dtype \"" + shown + "\"");
  EXPECT_EQ(error.cause(), "unknown dtype \"" + shown + "\"");
  EXPECT_EQ(error.file(), name);
  EXPECT_EQ(error.tensor(), name);
}

TEST(Error, ShowsTheBeginningOfALongName) {
  const Error error = Error(ErrorKind::kFormat, "is damaged").in_tensor(std::string(1'000'000, 'x'));
  EXPECT_EQ(error.message(), "tensor \"" + std::string(256, 'x') + "...\": is damaged");
  EXPECT_EQ(error.tensor().size(), 1'000'000U);
}

}  // namespace
}  // namespace veturbo
