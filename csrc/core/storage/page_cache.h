#pragma once

#include <cstdint>

namespace veturbo::storage {

// The share of a file's pages, 0 to 1, that the page cache holds. 1 when the system does not tell.
double cached_share(int fd, uint64_t size);

// Whether it holds the page that begins at `offset`. True when the system does not tell.
bool is_page_cached(int fd, uint64_t offset);

}  // namespace veturbo::storage
