#include <torch/library.h>
#include <torch/version.h>

#include <string>
#include <utility>
#include <vector>

#include "base/concat.h"
#include "engine/cipher.h"
#include "engine/model_file.h"
#include "format/cipher_header.h"
#include "torch/arena.h"
#include "torch/cipher.h"
#include "torch/errors.h"
#include "torch/io_helper.h"
#include "torch/load_job.h"
#include "torch/save_job.h"

#ifdef VETURBO_WITH_CUDA
#include "cuda/toolkit.h"
#endif

namespace veturbo {

namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Names = std::optional<std::vector<std::string>>;
using TensorList = std::tuple<std::vector<std::string>, std::vector<std::string>, std::vector<std::vector<int64_t>>>;

LoadOptions load_options(std::optional<at::Device> device, int64_t num_threads, bool use_pinned_memory,
                         std::optional<bool> use_direct_io, bool mmap, Names names, OptionalHelper helper,
                         OptionalCipher cipher) {
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
          .helper = std::move(helper),
          .cipher = std::move(cipher)};
}

c10::intrusive_ptr<LoadJob> start_load(const std::string& file, std::optional<at::Device> device, int64_t num_threads,
                                       bool use_pinned_memory, std::optional<bool> use_direct_io, bool mmap, Names names,
                                       OptionalHelper helper, OptionalCipher cipher) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(file, load_options(device, num_threads, use_pinned_memory, use_direct_io, mmap,
                                                           std::move(names), std::move(helper), std::move(cipher)));
  });
}

c10::intrusive_ptr<LoadJob> start_load_(const TensorDict& tensors, const std::string& file, int64_t num_threads,
                                        bool use_pinned_memory, std::optional<bool> use_direct_io, Names names,
                                        OptionalHelper helper, OptionalCipher cipher) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(file,
                                        load_options(std::nullopt, num_threads, use_pinned_memory, use_direct_io, /*mmap=*/false,
                                                     std::move(names), std::move(helper), std::move(cipher)),
                                        tensors);
  });
}

std::vector<at::Tensor> empty_buffers(const std::vector<int64_t>& offsets, const std::vector<int64_t>& sizes, at::Device device) {
  return with_errors([&] {
    if (offsets.size() != sizes.size()) {
      throw Error(ErrorKind::kInvalidArgument, concat(sizes.size(), " sizes need as many offsets, not ", offsets.size()));
    }
    std::vector<engine::FileRange> ranges;
    for (size_t i = 0; i < sizes.size(); ++i) {
      ranges.push_back({static_cast<uint64_t>(offsets[i]), static_cast<uint64_t>(sizes[i])});
    }
    return buffers_for(ranges, device);
  });
}

c10::intrusive_ptr<LoadJob> start_read_(const std::vector<at::Tensor>& buffers, const std::vector<int64_t>& offsets,
                                        const std::string& file, int64_t num_threads, bool use_pinned_memory,
                                        std::optional<bool> use_direct_io, OptionalHelper helper, OptionalCipher cipher) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(file,
                                        load_options(std::nullopt, num_threads, use_pinned_memory, use_direct_io, /*mmap=*/false,
                                                     std::nullopt, std::move(helper), std::move(cipher)),
                                        buffers, offsets);
  });
}

c10::intrusive_ptr<SaveJob> start_save(const TensorDict& tensors, const std::string& file,
                                       const std::optional<StringDict>& metadata, int64_t num_threads,
                                       const OptionalHelper& helper, const OptionalCipher& cipher) {
  return with_errors([&] { return c10::make_intrusive<SaveJob>(tensors, file, metadata, num_threads, helper, cipher); });
}

c10::intrusive_ptr<CipherJob> start_find_cipher(const std::string& file, std::optional<bool> use_cipher,
                                                const OptionalTensor& key, const OptionalTensor& iv) {
  return with_errors(
      [&] { return c10::make_intrusive<CipherJob>(file, CipherArguments{use_cipher, key, iv}, CipherJob::Purpose::kLoad); });
}

c10::intrusive_ptr<CipherJob> start_make_cipher(const std::string& file, std::optional<bool> use_cipher,
                                                const OptionalTensor& key, const OptionalTensor& iv) {
  return with_errors(
      [&] { return c10::make_intrusive<CipherJob>(file, CipherArguments{use_cipher, key, iv}, CipherJob::Purpose::kSave); });
}

void warn_of(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) {
    TORCH_WARN(warning);
  }
}

TensorDict load_file(const std::string& file, std::optional<at::Device> device, int64_t num_threads, bool use_pinned_memory,
                     std::optional<bool> use_direct_io, bool mmap, Names names, OptionalHelper helper,
                     std::optional<bool> use_cipher, const OptionalTensor& key, const OptionalTensor& iv) {
  OptionalCipher cipher = with_errors([&] { return find_cipher(file, {use_cipher, key, iv}); });
  const auto job = start_load(file, device, num_threads, use_pinned_memory, use_direct_io, mmap, std::move(names),
                              std::move(helper), std::move(cipher));
  TensorDict tensors = with_errors([&] { return job->result(); });
  warn_of(job->warnings());
  return tensors;
}

void load_file_(const TensorDict& tensors, const std::string& file, int64_t num_threads, bool use_pinned_memory,
                std::optional<bool> use_direct_io, Names names, OptionalHelper helper, std::optional<bool> use_cipher,
                const OptionalTensor& key, const OptionalTensor& iv) {
  OptionalCipher cipher = with_errors([&] { return find_cipher(file, {use_cipher, key, iv}); });
  const auto job = start_load_(tensors, file, num_threads, use_pinned_memory, use_direct_io, std::move(names), std::move(helper),
                               std::move(cipher));
  with_errors([&] { job->result(); });
  warn_of(job->warnings());
}

void save_file(const TensorDict& tensors, const std::string& file, const std::optional<StringDict>& metadata, int64_t num_threads,
               const OptionalHelper& helper, std::optional<bool> use_cipher, const OptionalTensor& key,
               const OptionalTensor& iv) {
  const OptionalCipher cipher = with_errors([&] { return make_cipher(file, {use_cipher, key, iv}); });
  const auto job = start_save(tensors, file, metadata, num_threads, helper, cipher);
  warn_of(with_errors([&] { return job->result(); }));
}

std::unique_ptr<storage::ReadableFile> open_cached(const std::string& file, const OptionalCipher& cipher) {
  return engine::open_for_read(file, {.direct_io = storage::DirectIo::kNever}, get(cipher));
}

void disconnect() {
  with_errors([] { storage::disconnect(); });
}

bool is_local(const std::string& file) {
  return with_errors([&] { return storage::is_local(file); });
}

StringDict read_metadata(const std::string& file, const OptionalCipher& cipher) {
  return with_errors([&] {
    StringDict metadata;
    const format::SafetensorsHeader header = engine::read_safetensors_header(*open_cached(file, cipher));
    for (const auto& [key, value] : header.metadata.value_or(format::Metadata{})) {
      metadata.insert(key, value);
    }
    return metadata;
  });
}

TensorList list_tensors(const std::string& file, const OptionalCipher& cipher) {
  return with_errors([&] {
    TensorList list;
    auto& [names, dtypes, shapes] = list;
    for (const format::TensorEntry& entry : engine::read_safetensors_header(*open_cached(file, cipher)).tensors) {
      names.push_back(entry.name);
      dtypes.emplace_back(format::dtype_name(entry.dtype));
      shapes.emplace_back(entry.shape.begin(), entry.shape.end());
    }
    return list;
  });
}

int64_t file_size(const std::string& file, const OptionalCipher& cipher) {
  return with_errors([&] { return static_cast<int64_t>(open_cached(file, cipher)->size()); });
}

StringDict read_cipher_header(const std::string& file) {
  return with_errors([&] {
    StringDict fields;
    const std::optional<format::CipherHeader> header = engine::read_cipher_header(*open_cached(file, std::nullopt));
    if (header) {
      fields.insert("mode", std::string(format::cipher_mode_name(header->mode)));
      fields.insert("file_timestamp", std::to_string(header->file_timestamp));
    }
    return fields;
  });
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
  library.impl("empty_buffers", empty_buffers);
  library.impl("start_save", start_save);
  library.impl("is_local", is_local);
  library.impl("disconnect", disconnect);
  library.impl("read_metadata", read_metadata);
  library.impl("list_tensors", list_tensors);
  library.impl("file_size", file_size);
  library.impl("read_cipher_header", read_cipher_header);
  library.impl("start_find_cipher", start_find_cipher);
  library.impl("start_make_cipher", start_make_cipher);
  library.impl("last_error", last_error);
  library.impl("build_info", build_info);
}

}  // namespace veturbo
