#include "format/container.h"

#include <string_view>

#include "format/safetensors.h"

namespace veturbo::format {

Container detect_container(std::span<const std::byte> first_bytes, uint64_t file_size) {
  using namespace std::string_view_literals;
  constexpr std::string_view kZipMagic = "PK\x03\x04"sv;
  constexpr char kPickleProtocol = '\x80';  // the opcode PROTO; a version from 2 to 5 follows
  constexpr size_t kTarMagicOffset = 257;
  constexpr std::string_view kTarMagic = "ustar"sv;

  if (looks_like_safetensors(first_bytes, file_size)) {
    return Container::kSafetensors;
  }
  const std::string_view text(reinterpret_cast<const char*>(first_bytes.data()), first_bytes.size());
  if (text.starts_with(kZipMagic)) {
    return Container::kTorchZip;
  }
  if (text.size() >= 2 && text[0] == kPickleProtocol && text[1] >= 2 && text[1] <= 5) {
    return Container::kTorchLegacy;
  }
  if (text.size() > kTarMagicOffset && text.substr(kTarMagicOffset).starts_with(kTarMagic)) {
    return Container::kTorchLegacy;
  }
  return Container::kUnknown;
}

}  // namespace veturbo::format
