#include <torch/library.h>
#include <torch/version.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/concat.h"
#include "engine/cipher.h"
#include "engine/model_file.h"
#include "format/cipher_header.h"
#include "storage/file_system.h"
#include "storage/memory_file.h"
#include "torch/arena.h"
#include "torch/checksum_job.h"
#include "torch/cipher.h"
#include "torch/errors.h"
#include "torch/io_helper.h"
#include "torch/load_job.h"
#include "torch/model_reader.h"
#include "torch/open_job.h"
#include "torch/save_job.h"

#ifdef VETURBO_WITH_CUDA
#include "cuda/toolkit.h"
#endif

namespace veturbo {

namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Names = std::optional<std::vector<std::string>>;
using NamesOfEach = std::optional<std::vector<std::vector<std::string>>>;
using Models = std::vector<c10::intrusive_ptr<ModelReader>>;

storage::DirectIo direct_io(std::optional<bool> use_direct_io) {
  if (!use_direct_io) {
    return storage::DirectIo::kAuto;
  }
  return *use_direct_io ? storage::DirectIo::kAlways : storage::DirectIo::kNever;
}

TransferOptions transfer_options(int64_t num_threads, bool use_pinned_memory, OptionalHelper helper,
                                 std::optional<int64_t> max_host_bytes = std::nullopt) {
  if (max_host_bytes && *max_host_bytes < 0) {
    throw Error(ErrorKind::kInvalidArgument, concat("max_host_bytes is ", *max_host_bytes, ": give a number of bytes, or none"));
  }
  return {.num_threads = num_threads,
          .pinning = use_pinned_memory ? Pinning::kPinned : Pinning::kPageable,
          .helper = std::move(helper),
          .max_host_bytes = max_host_bytes};
}

// Throws for what is no size.
std::vector<uint64_t> to_sizes(const std::vector<int64_t>& numbers) {
  if (std::any_of(numbers.begin(), numbers.end(), [](int64_t number) { return number < 0; })) {
    throw Error(ErrorKind::kInvalidArgument, "offsets, sizes and strides of a view cannot be negative");
  }
  return {numbers.begin(), numbers.end()};
}

std::vector<engine::View> to_views(const std::vector<int64_t>& offsets, const std::vector<std::vector<int64_t>>& sizes,
                                   const std::vector<std::vector<int64_t>>& strides) {
  if (sizes.size() != offsets.size() || strides.size() != offsets.size()) {
    throw Error(ErrorKind::kInvalidArgument, "a view has an offset, sizes and strides");
  }
  const std::vector<uint64_t> begins = to_sizes(offsets);
  std::vector<engine::View> views;
  views.reserve(begins.size());
  for (size_t i = 0; i < begins.size(); ++i) {
    views.push_back({begins[i], to_sizes(sizes[i]), to_sizes(strides[i])});
  }
  return views;
}

NamesOfEach of_one_model(Names names) {
  return names ? NamesOfEach({std::move(*names)}) : std::nullopt;
}

c10::intrusive_ptr<ModelReader> open_model(const std::string& file, std::optional<bool> use_direct_io,
                                           const OptionalCipher& cipher) {
  return with_errors([&] { return c10::make_intrusive<ModelReader>(open_source(file, direct_io(use_direct_io), cipher)); });
}

c10::intrusive_ptr<OpenJob> start_open_model(const std::string& file, std::optional<bool> use_direct_io,
                                             const OptionalCipher& cipher, bool is_only) {
  return with_errors([&] { return c10::make_intrusive<OpenJob>(file, direct_io(use_direct_io), cipher, is_only); });
}

c10::intrusive_ptr<ModelReader> open_buffer(const at::Tensor& bytes, const std::string& name) {
  return with_errors([&] { return c10::make_intrusive<ModelReader>(bytes, name); });
}

c10::intrusive_ptr<LoadJob> start_load_models(const Models& models, std::optional<at::Device> device, int64_t num_threads,
                                              bool use_pinned_memory, bool mmap, NamesOfEach names, OptionalHelper helper,
                                              std::optional<int64_t> max_host_bytes) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(
        models, LoadOptions{.device = device,
                            .mmap = mmap,
                            .names = std::move(names),
                            .transfer = transfer_options(num_threads, use_pinned_memory, std::move(helper), max_host_bytes)});
  });
}

c10::intrusive_ptr<LoadJob> start_load_models_(const TensorDict& tensors, const Models& models, int64_t num_threads,
                                               bool use_pinned_memory, NamesOfEach names, OptionalHelper helper,
                                               std::optional<int64_t> max_host_bytes) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(
        models,
        LoadOptions{.names = std::move(names),
                    .transfer = transfer_options(num_threads, use_pinned_memory, std::move(helper), max_host_bytes)},
        tensors);
  });
}

c10::intrusive_ptr<LoadJob> start_load_views(const c10::intrusive_ptr<ModelReader>& model, const std::vector<std::string>& names,
                                             const std::vector<int64_t>& offsets, const std::vector<std::vector<int64_t>>& sizes,
                                             const std::vector<std::vector<int64_t>>& strides, std::optional<at::Device> device,
                                             int64_t num_threads, bool use_pinned_memory, OptionalHelper helper,
                                             std::optional<int64_t> max_host_bytes) {
  return with_errors([&] {
    return c10::make_intrusive<LoadJob>(
        model,
        LoadOptions{.device = device,
                    .transfer = transfer_options(num_threads, use_pinned_memory, std::move(helper), max_host_bytes)},
        names, to_views(offsets, sizes, strides));
  });
}

c10::intrusive_ptr<LoadJob> start_load(const std::string& file, std::optional<at::Device> device, int64_t num_threads,
                                       bool use_pinned_memory, std::optional<bool> use_direct_io, bool mmap, Names names,
                                       OptionalHelper helper, const OptionalCipher& cipher) {
  return start_load_models({open_model(file, use_direct_io, cipher)}, device, num_threads, use_pinned_memory, mmap,
                           of_one_model(std::move(names)), std::move(helper), std::nullopt);
}

c10::intrusive_ptr<LoadJob> start_load_(const TensorDict& tensors, const std::string& file, int64_t num_threads,
                                        bool use_pinned_memory, std::optional<bool> use_direct_io, Names names,
                                        OptionalHelper helper, const OptionalCipher& cipher) {
  return start_load_models_(tensors, {open_model(file, use_direct_io, cipher)}, num_threads, use_pinned_memory,
                            of_one_model(std::move(names)), std::move(helper), std::nullopt);
}

std::vector<at::Tensor> empty_buffers(const std::vector<int64_t>& offsets, const std::vector<int64_t>& sizes, at::Device device) {
  return with_errors([&] {
    if (offsets.size() != sizes.size()) {
      throw Error(ErrorKind::kInvalidArgument, concat(sizes.size(), " sizes need as many offsets, not ", offsets.size()));
    }
    std::vector<engine::FileRange> ranges;
    ranges.reserve(sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) {
      ranges.push_back({static_cast<uint64_t>(offsets[i]), static_cast<uint64_t>(sizes[i])});
    }
    return buffers_for(ranges, device);
  });
}

c10::intrusive_ptr<LoadJob> start_read_(const std::vector<at::Tensor>& buffers, const std::vector<int64_t>& offsets,
                                        const std::string& file, int64_t num_threads, bool use_pinned_memory,
                                        std::optional<bool> use_direct_io, OptionalHelper helper, const OptionalCipher& cipher) {
  return with_errors([&] {
    const TransferOptions options = transfer_options(num_threads, use_pinned_memory, std::move(helper));
    Source source = open_source(file, direct_io(use_direct_io), cipher);
    return c10::make_intrusive<LoadJob>(std::move(source), options, buffers, offsets);
  });
}

c10::intrusive_ptr<SaveJob> start_save(const TensorDict& tensors, const std::string& file,
                                       const std::optional<StringDict>& metadata, int64_t num_threads,
                                       const OptionalHelper& helper, const OptionalCipher& cipher) {
  return with_errors([&] {
    const auto open = [&](uint64_t size) { return engine::open_for_write(file, size, get(cipher)); };
    return c10::make_intrusive<SaveJob>(tensors, file, open, metadata, num_threads, helper);
  });
}

c10::intrusive_ptr<SaveJob> start_write(const std::vector<at::Tensor>& buffers, const std::vector<int64_t>& offsets,
                                        const std::string& file, const std::vector<int64_t>& late, int64_t num_threads,
                                        const OptionalHelper& helper, const OptionalCipher& cipher) {
  return with_errors([&] {
    const auto open = [&](uint64_t size) { return engine::open_for_write(file, size, get(cipher)); };
    return c10::make_intrusive<SaveJob>(buffers, offsets, late, file, open, num_threads, helper);
  });
}

c10::intrusive_ptr<ChecksumJob> start_checksum(const std::vector<at::Tensor>& buffers, int64_t num_threads,
                                               const OptionalHelper& helper) {
  return with_errors([&] { return c10::make_intrusive<ChecksumJob>(buffers, num_threads, helper); });
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

at::Tensor serialize(const TensorDict& tensors, const std::optional<StringDict>& metadata, int64_t num_threads) {
  return with_errors([&] {
    at::Tensor bytes;
    const auto open = [&bytes](uint64_t size) {
      const engine::FileRange whole = {0, size};
      bytes = buffers_for({&whole, 1}, at::kCPU).front();
      return std::make_unique<storage::MemoryTarget>(std::span(static_cast<std::byte*>(bytes.mutable_data_ptr()), size));
    };
    SaveJob(tensors, "", open, metadata, num_threads, std::nullopt).result();
    return bytes;
  });
}

void warn_of(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) {
    TORCH_WARN(warning);
  }
}

TensorDict load_file(const std::string& file, std::optional<at::Device> device, int64_t num_threads, bool use_pinned_memory,
                     std::optional<bool> use_direct_io, bool mmap, Names names, OptionalHelper helper,
                     std::optional<bool> use_cipher, const OptionalTensor& key, const OptionalTensor& iv) {
  const OptionalCipher cipher = with_errors([&] { return find_cipher(file, {use_cipher, key, iv}); });
  const auto job =
      start_load(file, device, num_threads, use_pinned_memory, use_direct_io, mmap, std::move(names), std::move(helper), cipher);
  TensorDict tensors = with_errors([&] { return job->result(); });
  warn_of(job->warnings());
  return tensors;
}

void load_file_(const TensorDict& tensors, const std::string& file, int64_t num_threads, bool use_pinned_memory,
                std::optional<bool> use_direct_io, Names names, OptionalHelper helper, std::optional<bool> use_cipher,
                const OptionalTensor& key, const OptionalTensor& iv) {
  const OptionalCipher cipher = with_errors([&] { return find_cipher(file, {use_cipher, key, iv}); });
  const auto job =
      start_load_(tensors, file, num_threads, use_pinned_memory, use_direct_io, std::move(names), std::move(helper), cipher);
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

bool is_on_local_file_system(int64_t descriptor) {
  return storage::is_local(storage::file_system_of(static_cast<int>(descriptor)));
}

StringDict read_metadata(const std::string& file, const OptionalCipher& cipher) {
  return with_errors(
      [&] { return ModelReader(open_source(file, storage::DirectIo::kNever, cipher)).metadata().value_or(StringDict()); });
}

TensorList list_tensors(const std::string& file, const OptionalCipher& cipher) {
  return with_errors([&] { return ModelReader(open_source(file, storage::DirectIo::kNever, cipher)).list_tensors(); });
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
  library.impl("open_model", open_model);
  library.impl("start_open_model", start_open_model);
  library.impl("open_buffer", open_buffer);
  library.impl("start_load_models", start_load_models);
  library.impl("start_load_models_", start_load_models_);
  library.impl("start_load_views", start_load_views);
  library.impl("load_file", load_file);
  library.impl("load_file_", load_file_);
  library.impl("save_file", save_file);
  library.impl("start_load", start_load);
  library.impl("start_load_", start_load_);
  library.impl("start_read_", start_read_);
  library.impl("empty_buffers", empty_buffers);
  library.impl("start_save", start_save);
  library.impl("start_write", start_write);
  library.impl("start_checksum", start_checksum);
  library.impl("serialize", serialize);
  library.impl("is_local", is_local);
  library.impl("is_on_local_file_system", is_on_local_file_system);
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
