// How fast headers are parsed: the JSON of a safetensors file, up to the checked list of its tensors.
//
//   header_bench   prints for each header its size and the least and the median time over many parses
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "format/safetensors.h"

namespace {

using veturbo::format::DType;
using veturbo::format::TensorEntry;

constexpr int kRepeats = 101;

// A language model's: so many layers of so many matrices each, and the names that such models have.
std::vector<TensorEntry> layers(size_t num_layers, const std::vector<std::string>& matrices, DType dtype) {
  std::vector<TensorEntry> tensors;
  for (size_t layer = 0; layer < num_layers; ++layer) {
    for (const std::string& matrix : matrices) {
      TensorEntry& tensor = tensors.emplace_back();
      tensor.name = "model.layers." + std::to_string(layer) + "." + matrix + ".weight";
      tensor.dtype = dtype;
      tensor.shape = {256 + layer % 16, 64};
    }
  }
  return tensors;
}

void measure(const char* name, std::vector<TensorEntry> tensors) {
  veturbo::format::lay_out(tensors);
  const std::string header = veturbo::format::serialize_header(tensors, {{{"format", "pt"}}});
  const std::string_view json = std::string_view(header).substr(veturbo::format::kHeaderLengthBytes);
  const uint64_t file_size = header.size() + tensors.back().end;
  std::vector<double> seconds;
  for (int i = 0; i < kRepeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const size_t found = veturbo::format::parse_header(json, file_size).tensors.size();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    if (found != tensors.size()) {
      std::fprintf(stderr, "%s: %zu tensors were found, not %zu\n", name, found, tensors.size());
      std::exit(1);
    }
  }
  std::sort(seconds.begin(), seconds.end());
  const double bytes = static_cast<double>(json.size());
  const auto rate = [&](double time) { return bytes / time / 1e6; };
  const double median = seconds[seconds.size() / 2];
  std::printf("%-30s %8.0f KB  median %8.3f ms %6.0f MB/s  best %8.3f ms %6.0f MB/s\n", name, bytes / 1e3, median * 1e3,
              rate(median), seconds[0] * 1e3, rate(seconds[0]));
}

}  // namespace

int main() {
  std::vector<std::string> experts;
  for (int i = 0; i < 20; ++i) {
    experts.push_back("mlp.experts." + std::to_string(i) + ".down_proj");
  }
  measure("20,000 tensors", layers(1000, experts, DType::kBF16));
  measure("201 tensors, as TinyLlama",
          layers(22,
                 {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                  "mlp.down_proj", "input_layernorm", "post_attention_layernorm"},
                 DType::kBF16));
}
