#include "storage/sfcs/network_segment.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/concat.h"
#include "base/error.h"

namespace veturbo::storage::sfcs {

namespace {

uint32_t ipv4_address(const sockaddr* address) {
  sockaddr_in ipv4;
  std::memcpy(&ipv4, address, sizeof(ipv4));
  return ntohl(ipv4.sin_addr.s_addr);
}

// Empty when the NIC has none.
std::string network_of(const ifaddrs* addresses, std::string_view nic) {
  for (const ifaddrs* entry = addresses; entry != nullptr; entry = entry->ifa_next) {
    if (nic == entry->ifa_name && entry->ifa_addr != nullptr && entry->ifa_addr->sa_family == AF_INET &&
        entry->ifa_netmask != nullptr) {
      return network_text(ipv4_address(entry->ifa_addr), ipv4_address(entry->ifa_netmask));
    }
  }
  return "";
}

}  // namespace

std::string network_text(uint32_t address, uint32_t mask) {
  const uint32_t network = address & mask;
  return concat(network >> 24U, '.', network >> 16U & 255U, '.', network >> 8U & 255U, '.', network & 255U, '/',
                std::popcount(mask));
}

std::string network_segment(std::string_view nics) {
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) {
    throw Error::from_errno(errno, "getifaddrs");
  }
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> addresses(first, ::freeifaddrs);
  for (std::string_view rest = nics; !rest.empty();) {
    const std::string_view nic = rest.substr(0, rest.find(','));
    if (std::string network = network_of(addresses.get(), nic); !network.empty()) {
      return network;
    }
    rest.remove_prefix(std::min(nic.size() + 1, rest.size()));
  }
  throw Error(ErrorKind::kInvalidArgument, concat("NIC ", nics,
                                                  " has no IPv4 network: set MLP_RDMA_NETWORK_SEGMENT to the one that leads to "
                                                  "SFCS, such as 10.0.0.0/24"));
}

}  // namespace veturbo::storage::sfcs
