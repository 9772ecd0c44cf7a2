#include <torch/library.h>
#include <torch/version.h>

#include <string>
#include <utility>
#include <vector>

#include "base/concat.h"
#include "engine/model_file.h"
#include "torch/errors.h"
#include "torch/io_helper.h"
#include "torch/load_job.h"
#include "torch/save_job.h"

#ifdef VETURBO_WITH_CUDA
#include "cuda/toolkit.h"
#endif

namespace veturbo {

namespace {

using Names = std::optional<std::vector<std::string>>;
using TensorList = std::tuple<std::vector<std::string>, std::vector<std::string>, std::vector<std::vector<int64_t>>>;

LoadOptions load_options(std::optional<at::Device> device, int64_t num_threads, bool use_pinned_memory,
                         std::optional<bool> use_direct_io, bool mmap, Names names, OptionalHelper helper) {
  storage::DirectIo direct_io = storage::DirectIo::kAuto;
  if (use_direct_io) {
    direct_io = *use_direct_io ? storage::DirectIo::kAlways : storage::DirectIo::kNever;
  }
  return {.device = device,
          .num_threads = num_threads,
          .pinning = use_pinned_memory ? Pinning::kPinned : Pinning::kPageable,
          .direct_io = direct_io,
          .mmap = mmap,
          .names = std::move(names),
          .helper = std::move(helper)};
}

c10::intrusive_ptr<LoadJob> start_load(const std::string& file, std::optional<at::Device> device, int64_t num_threads,
                                       bool use_pinned_memory, std::optional<bool> use_direct_io, bool mmap, Names names,
                                       OptionalHelper helper) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(
        file, load_options(device, num_threads, use_pinned_memory, use_direct_io, mmap, std::move(names), std::move(helper)));
  });
}

c10::intrusive_ptr<LoadJob> start_load_(const TensorDict& tensors, const std::string& file, int64_t num_threads,
                                        bool use_pinned_memory, std::optional<bool> use_direct_io, Names names,
                                        OptionalHelper helper) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(file,
                                        load_options(std::nullopt, num_threads, use_pinned_memory, use_direct_io, /*mmap=*/false,
                                                     std::move(names), std::move(helper)),
                                        tensors);
  });
}

c10::intrusive_ptr<LoadJob> start_read_(const at::Tensor& buffer, const std::string& file, int64_t num_threads,
                                        bool use_pinned_memory, std::optional<bool> use_direct_io, OptionalHelper helper) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(file,
                                        load_options(std::nullopt, num_threads, use_pinned_memory, use_direct_io, /*mmap=*/false,
                                                     std::nullopt, std::move(helper)),
                                        buffer);
  });
}

c10::intrusive_ptr<SaveJob> start_save(const TensorDict& tensors, const std::string& file,
                                       const std::optional<StringDict>& metadata, int64_t num_threads,
                                       const OptionalHelper& helper) {
  return with_errors([&] { return c10::make_intrusive<SaveJob>(tensors, file, metadata, num_threads, helper); });
}

TensorDict load_file(const std::string& file, std::optional<at::Device> device, int64_t num_threads, bool use_pinned_memory,
                     std::optional<bool> use_direct_io, bool mmap, Names names, OptionalHelper helper) {
  const auto job =
      start_load(file, device, num_threads, use_pinned_memory, use_direct_io, mmap, std::move(names), std::move(helper));
  return with_errors([&] { return job->result(); });
}

void load_file_(const TensorDict& tensors, const std::string& file, int64_t num_threads, bool use_pinned_memory,
                std::optional<bool> use_direct_io, Names names, OptionalHelper helper) {
  const auto job = start_load_(tensors, file, num_threads, use_pinned_memory, use_direct_io, std::move(names), std::move(helper));
  with_errors([&] { job->result(); });
}

void save_file(const TensorDict& tensors, const std::string& file, const std::optional<StringDict>& metadata, int64_t num_threads,
               const OptionalHelper& helper) {
  const auto job = start_save(tensors, file, metadata, num_threads, helper);
  for (const std::string& warning : with_errors([&] { return job->result(); })) {
    TORCH_WARN(warning);
  }
}

format::SafetensorsHeader read_header(const std::string& file) {
  return engine::read_safetensors_header(*storage::open_for_read(file, {.direct_io = storage::DirectIo::kNever}));
}

StringDict read_metadata(const std::string& file) {
  return with_errors([&] {
    StringDict metadata;
    const format::SafetensorsHeader header = read_header(file);
    for (const auto& [key, value] : header.metadata.value_or(format::Metadata{})) {
      metadata.insert(key, value);
    }
    return metadata;
  });
}

TensorList list_tensors(const std::string& file) {
  return with_errors([&] {
    TensorList list;
    auto& [names, dtypes, shapes] = list;
    for (const format::TensorEntry& entry : read_header(file).tensors) {
      names.push_back(entry.name);
      dtypes.emplace_back(format::dtype_name(entry.dtype));
      shapes.emplace_back(entry.shape.begin(), entry.shape.end());
    }
    return list;
  });
}

int64_t file_size(const std::string& file) {
  return with_errors(
      [&] { return static_cast<int64_t>(storage::open_for_read(file, {.direct_io = storage::DirectIo::kNever})->size()); });
}

StringDict build_info() {
  StringDict info;
  info.insert("torch", TORCH_VERSION);
#ifdef VETURBO_WITH_CUDA
  info.insert("cuda", concat(cuda::toolkit_version() / 1000, ".", cuda::toolkit_version() % 1000 / 10));
#else
  info.insert("cuda", "");
#endif
  return info;
}

}  // namespace

TORCH_LIBRARY_IMPL(veturbo, CatchAll, library) {
  library.impl("load_file", load_file);
  library.impl("load_file_", load_file_);
  library.impl("save_file", save_file);
  library.impl("start_load", start_load);
  library.impl("start_load_", start_load_);
  library.impl("start_read_", start_read_);
  library.impl("start_save", start_save);
  library.impl("read_metadata", read_metadata);
  library.impl("list_tensors", list_tensors);
  library.impl("file_size", file_size);
  library.impl("last_error", last_error);
  library.impl("build_info", build_info);
}

}  // namespace veturbo
