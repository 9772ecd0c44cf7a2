#include "base/iso_time.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace veturbo {
namespace {

std::optional<long long> unix_time(const std::string& text) {
  const auto time = parse_iso_time(text);
  return time ? std::optional<long long>(time->time_since_epoch().count()) : std::nullopt;
}

TEST(IsoTime, CountsFromTheEpoch) {
  EXPECT_EQ(unix_time("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(unix_time("2024-02-29T23:59:59Z"), 1709251199);
  EXPECT_EQ(unix_time("2016-12-31T23:59:60Z"), 1483228800);
  EXPECT_EQ(unix_time("1969-12-31T23:59:59Z"), -1);
  EXPECT_EQ(unix_time("9999-12-31T23:59:59Z"), 253402300799);
}

TEST(IsoTime, IsMovedByItsOffset) {
  EXPECT_EQ(unix_time("1970-01-01T08:00:00+08:00"), 0);
  EXPECT_EQ(unix_time("1969-12-31T18:30:00-05:30"), 0);
  EXPECT_EQ(unix_time("1970-01-01T00:00:00-00:00"), 0);
}

TEST(IsoTime, LosesItsFraction) {
  EXPECT_EQ(unix_time("1970-01-01T00:00:01.9Z"), 1);
  EXPECT_EQ(unix_time("1970-01-01T00:00:01,999999999Z"), 1);
  EXPECT_EQ(unix_time("1970-01-01T08:00:01.123456+08:00"), 1);
}

TEST(IsoTime, IsNotWhatOnlyLooksLikeOne) {
  for (const std::string text : {"",
                                 "x",
                                 "1709251199",
                                 "2024-05-06",
                                 "2024-05-06T07:08:09",
                                 "2024-05-06 07:08:09Z",
                                 "2024-05-06T07:08Z",
                                 "2024-05-06T07:08:09.Z",
                                 "2024-05-06T07:08:09.",
                                 "2024-05-06T07:08:09ZZ",
                                 "2024-05-06T07:08:09Z ",
                                 " 2024-05-06T07:08:09Z",
                                 "2024-05-06T07:08:09+08",
                                 "2024-05-06T07:08:09+0800",
                                 "2024-05-06T07:08:09+08:0",
                                 "2024-05-06T07:08:09+24:00",
                                 "2024-05-06T07:08:09+08:60",
                                 "2024-05-06T24:08:09Z",
                                 "2024-05-06T07:60:09Z",
                                 "2024-05-06T07:08:61Z",
                                 "2024-00-06T07:08:09Z",
                                 "2024-13-06T07:08:09Z",
                                 "2024-05-00T07:08:09Z",
                                 "2023-02-29T07:08:09Z",
                                 "24-05-06T07:08:09Z",
                                 "-024-05-06T07:08:09Z",
                                 "20240506T070809Z"}) {
    EXPECT_EQ(unix_time(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace veturbo
