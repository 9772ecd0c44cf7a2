#pragma once

#include <cstdint>

namespace veturbo::storage {

// The share of a file's pages, 0 to 1, that the page cache holds. 1 when the system does not tell.
double cached_share(int fd, uint64_t size);

}  // namespace veturbo::storage
