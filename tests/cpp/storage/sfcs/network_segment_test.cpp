#include "storage/sfcs/network_segment.h"

#include <gtest/gtest.h>

namespace veturbo::storage::sfcs {
namespace {

TEST(SfcsNetworkSegment, IsTheNetworkOfTheFirstNicThatHasOne) {
  EXPECT_EQ(network_text(0x0A010203, 0xFFFFFF00), "10.1.2.0/24");
  EXPECT_EQ(network_text(0xC0A8FFFE, 0xFFFFF000), "192.168.240.0/20");
  EXPECT_EQ(network_text(0x0A010203, 0xFFFFFFFF), "10.1.2.3/32");
  EXPECT_EQ(network_segment("lo"), "127.0.0.0/8");
  EXPECT_EQ(network_segment("nosuchnic,lo"), "127.0.0.0/8");
}

}  // namespace
}  // namespace veturbo::storage::sfcs
