#include "engine/model_file.h"

#include <algorithm>
#include <cstddef>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/container.h"

namespace veturbo::engine {

namespace {

// Holds the header of most models whole: from far away a second read takes as long as the first.
constexpr uint64_t kFirstRead = uint64_t{64} << 10;
// That of small models: here it is the copying that takes time.
constexpr uint64_t kFirstNearRead = uint64_t{8} << 10;
static_assert(kFirstNearRead >= format::kContainerMagicBytes);

}  // namespace

format::SafetensorsHeader read_safetensors_header(storage::ReadableFile& file) {
  try {
    std::vector<std::byte> first(std::min(file.size(), file.is_near() ? kFirstNearRead : kFirstRead));
    file.read_at(0, first);
    const format::Container container = format::detect_container(first, file.size());
    if (container == format::Container::kTorchZip || container == format::Container::kTorchLegacy) {
      throw Error(ErrorKind::kTorchFile,
                  "this is a file of torch.save, not safetensors: convert it with python -m veturboio.convert");
    }
    const uint64_t length = format::parse_header_length(first, file.size());
    std::string json(length, '\0');
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(json));
    const size_t have = std::min<size_t>(length, first.size() - format::kHeaderLengthBytes);
    std::copy_n(first.begin() + format::kHeaderLengthBytes, have, bytes.begin());
    file.read_at(format::kHeaderLengthBytes + have, bytes.subspan(have));
    return format::parse_header(json, file.size());
  } catch (Error& error) {
    throw error.in_file(file.uri());
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kOutOfMemory, "not enough memory for its header").in_file(file.uri());
  }
}

}  // namespace veturbo::engine
