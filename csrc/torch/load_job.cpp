#include "torch/load_job.h"

#include <ATen/Functions.h>
#include <ATen/MemoryOverlap.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <mutex>
#include <unordered_set>
#include <utility>

#include "base/concat.h"
#include "engine/cipher.h"
#include "engine/model_file.h"
#include "storage/encrypted_file.h"
#include "torch/accelerator.h"
#include "torch/arena.h"
#include "torch/dtype.h"
#include "torch/errors.h"
#include "torch/tensor_memory.h"

namespace veturbo {

namespace {

// What PyTorch makes of an entry of the file. Throws an Error that names the tensor.
struct Spec {
  at::ScalarType type;
  std::vector<int64_t> sizes;
};

Spec spec_of(const format::TensorEntry& entry) {
  try {
    const std::optional<at::ScalarType> type = to_scalar_type(entry.dtype);
    if (!type) {
      throw Error(ErrorKind::kFormat, concat("PyTorch has no dtype for ", format::dtype_name(entry.dtype),
                                             ": leave this tensor out by giving the names of the others"));
    }
    return {*type, to_tensor_sizes(entry.dtype, entry.shape)};
  } catch (Error& error) {
    throw error.in_tensor(entry.name);
  }
}

std::string join(const std::vector<std::string>& texts, std::string_view separator) {
  std::string joined;
  for (const std::string& text : texts) {
    joined += concat(joined.empty() ? "" : separator, text);
  }
  return joined;
}

// Gives an index to a device that was named without one.
at::Device with_index(at::Device device) {
  if (device.has_index() || device.is_cpu() || device.is_meta()) {
    return device;
  }
  return c10::impl::VirtualGuardImpl(device.type()).getDevice();
}

std::unique_ptr<storage::ReadableFile> open_file(const std::string& file, const LoadOptions& options) {
  try {
    engine::check_num_threads(options.num_threads);
  } catch (Error& error) {
    throw error.in_file(file);
  }
  return engine::open_for_read(file, {.direct_io = options.direct_io}, get(options.cipher));
}

// Whether the bytes in the tensor's memory are its values, in order. Those of a view that conjugates or negates lazily are not.
bool holds_its_bytes(const at::Tensor& tensor) {
  return tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

// Why the file's tensor cannot be written into `tensor`; empty when it can.
std::string mismatch(const Spec& spec, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.is_meta() || tensor.is_quantized()) {
    return "is not a dense tensor with memory";
  }
  if (tensor.sizes() != at::IntArrayRef(spec.sizes)) {
    return concat("has shape ", tensor.sizes(), ", the file ", at::IntArrayRef(spec.sizes));
  }
  if (tensor.scalar_type() != spec.type) {
    return concat("has dtype ", tensor.scalar_type(), ", the file ", spec.type);
  }
  if (at::has_internal_overlap(tensor) == at::MemOverlap::Yes) {
    return "has elements that share memory (it was made by expand()): give a copy of it";
  }
  return "";
}

}  // namespace

LoadJob::LoadJob(const std::string& file, LoadOptions options)
    : options_(std::move(options)), file_(open_file(file, options_)), header_(engine::read_safetensors_header(*file_)) {
  try {
    if (options_.names) {
      select(*options_.names);
    }
    const at::Device device = with_index(options_.device.value_or(at::Device(at::kCPU)));
    options_.device = device;
    if (device.is_cpu() && options_.mmap) {
      read_what_is_too_far_to_map();
    }
    allocate();
    const bool has_data_to_read = !device.is_meta() && !(device.is_cpu() && options_.mmap);
    start(has_data_to_read ? ranges() : std::vector<engine::FileRange>(header_.tensors.size()));
  } catch (Error& error) {
    throw error.in_file(file);
  }
}

LoadJob::LoadJob(const std::string& file, LoadOptions options, const TensorDict& into)
    : options_(std::move(options)), file_(open_file(file, options_)), header_(engine::read_safetensors_header(*file_)) {
  try {
    if (options_.names) {
      select(*options_.names);
    }
    adopt(into);
    start(ranges());
  } catch (Error& error) {
    throw error.in_file(file);
  }
}

LoadJob::LoadJob(const std::string& file, LoadOptions options, const std::vector<at::Tensor>& into,
                 const std::vector<int64_t>& offsets)
    : options_(std::move(options)), file_(open_file(file, options_)), writes_existing_(true) {
  try {
    if (into.size() != offsets.size()) {
      throw Error(ErrorKind::kInvalidArgument, concat(into.size(), " buffers need as many offsets, not ", offsets.size()));
    }
    std::vector<engine::FileRange> ranges;
    for (size_t i = 0; i < into.size(); ++i) {
      const at::Tensor& buffer = into[i];
      if (buffer.scalar_type() != at::kByte || !buffer.is_contiguous()) {
        throw Error(ErrorKind::kInvalidArgument, "a buffer must be a contiguous tensor of dtype uint8");
      }
      const engine::FileRange range = {static_cast<uint64_t>(offsets[i]), buffer.nbytes()};
      if (offsets[i] < 0 || range.offset > file_->size() || range.size > file_->size() - range.offset) {
        throw Error(ErrorKind::kInvalidArgument,
                    concat(range.size, " bytes from ", offsets[i], " on are not in the file, which has ", file_->size()));
      }
      ranges.push_back(range);
      loaded_.push_back({buffer, buffer});
    }
    start(ranges);
  } catch (Error& error) {
    throw error.in_file(file);
  }
}

void LoadJob::select(const std::vector<std::string>& names) {
  std::unordered_set<std::string> wanted(names.begin(), names.end());
  std::vector<format::TensorEntry> selected;
  for (format::TensorEntry& entry : header_.tensors) {
    if (wanted.erase(entry.name) > 0) {
      selected.push_back(std::move(entry));
    }
  }
  if (!wanted.empty()) {
    std::vector<std::string> missing(wanted.begin(), wanted.end());
    std::sort(missing.begin(), missing.end());
    throw Error(ErrorKind::kInvalidArgument, concat("the file has no tensor named ", join(missing, ", ")));
  }
  header_.tensors = std::move(selected);
}

void LoadJob::allocate() {
  if (options_.device->is_cpu()) {
    options_.mmap ? map_file() : allocate_in_arena();
    return;
  }
  for (const format::TensorEntry& entry : header_.tensors) {
    const Spec spec = spec_of(entry);
    const at::Tensor tensor = at::empty(spec.sizes, at::TensorOptions(spec.type).device(*options_.device));
    loaded_.push_back({tensor, tensor});
  }
}

void LoadJob::allocate_in_arena() {
  std::vector<Spec> specs;
  for (const format::TensorEntry& entry : header_.tensors) {
    specs.push_back(spec_of(entry));
  }
  const ArenaLayout layout = lay_out_arena(ranges());
  const auto arena = std::make_shared<MappedRegion>(MappedRegion::anonymous(layout.size));
  for (size_t i = 0; i < specs.size(); ++i) {
    const uint64_t bytes = header_.tensors[i].num_bytes();
    const at::Tensor tensor = tensor_over(arena, layout.offsets[i], bytes, specs[i].sizes, specs[i].type, Reclaim::kDiscardPages);
    loaded_.push_back({tensor, tensor});
  }
}

void LoadJob::read_what_is_too_far_to_map() {
  const std::string storage = file_->too_far_to_map();
  if (storage.empty()) {
    return;
  }
  options_.mmap = false;
  static std::mutex mutex;
  static std::unordered_set<std::string> said;
  std::lock_guard lock(mutex);
  if (said.insert(storage).second) {
    warning_ = concat(file_->uri(), ": read instead of mapped, as all that is on ", storage,
                      " and not in the page cache: a mapping would wait for it at every few pages (this is said once)");
  }
}

void LoadJob::map_file() {
  const auto mapping = std::make_shared<MappedRegion>(file_->map());
  for (const format::TensorEntry& entry : header_.tensors) {
    const Spec spec = spec_of(entry);
    const uint64_t offset = header_.data_offset + entry.begin;
    // The header's length need not be a multiple of anything; a tensor that comes to lie askew for its type is copied.
    const size_t alignment = c10::scalarTypeToTypeMeta(spec.type).itemsize();
    const bool aligned = offset % alignment == 0;
    const at::Tensor bytes = aligned ? at::Tensor()
                                     : tensor_over(mapping, offset, entry.num_bytes(), {static_cast<int64_t>(entry.num_bytes())},
                                                   at::kByte, Reclaim::kKeepPages)
                                           .clone();
    const at::Tensor tensor = aligned
                                  ? tensor_over(mapping, offset, entry.num_bytes(), spec.sizes, spec.type, Reclaim::kKeepPages)
                                  : at::empty({0}, at::TensorOptions(spec.type)).set_(bytes.storage(), 0, spec.sizes);
    loaded_.push_back({tensor, tensor});
  }
}

void LoadJob::adopt(const TensorDict& into) {
  writes_existing_ = true;
  std::vector<std::string> faults;
  std::unordered_set<std::string_view> in_file;
  for (const format::TensorEntry& entry : header_.tensors) {
    in_file.insert(entry.name);
    const auto found = into.find(entry.name);
    if (found == into.end()) {
      faults.push_back(concat("\"", entry.name, "\" is in the file but not among the tensors"));
      continue;
    }
    const std::string fault = mismatch(spec_of(entry), found->value());
    if (!fault.empty()) {
      faults.push_back(concat("\"", entry.name, "\" ", fault));
      continue;
    }
    const at::Tensor tensor = found->value().detach();
    loaded_.push_back({found->value(), holds_its_bytes(tensor) ? tensor : at::empty(tensor.sizes(), tensor.options())});
  }
  for (const auto& item : into) {
    if (!in_file.contains(item.key())) {
      faults.push_back(concat("\"", item.key(), "\" is not in the file"));
    }
  }
  if (!faults.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                concat("the tensors do not match the file, nothing was loaded: ", join(faults, "; ")));
  }
}

std::vector<engine::FileRange> LoadJob::ranges() const {
  std::vector<engine::FileRange> ranges;
  ranges.reserve(header_.tensors.size());
  for (const format::TensorEntry& entry : header_.tensors) {
    ranges.push_back({header_.data_offset + entry.begin, entry.num_bytes()});
  }
  return ranges;
}

void LoadJob::start(const std::vector<engine::FileRange>& ranges) {
  // A leg for each device, over the ranges of the tensors that are there.
  std::vector<at::Device> devices;
  for (const Loaded& loaded : loaded_) {
    const at::Device device = loaded.contiguous.device();
    if (std::find(devices.begin(), devices.end(), device) == devices.end()) {
      devices.push_back(device);
    }
  }
  const storage::ReadTraits traits = file_->traits();
  uint64_t bytes = 0;
  size_t num_chunks = 0;
  int num_threads = 0;
  for (const at::Device device : devices) {
    std::vector<engine::FileRange> on_device = ranges;
    for (size_t i = 0; i < loaded_.size(); ++i) {
      if (loaded_[i].contiguous.device() != device) {
        on_device[i].size = 0;
      }
    }
    const bool decrypts_there = options_.cipher && decrypts(device);
    storage::ReadableFile* file = file_.get();
    if (decrypts_there) {
      const auto& encrypted = dynamic_cast<const storage::DecryptedFile&>(*file_);
      file = &encrypted.ciphertext();
      for (engine::FileRange& range : on_device) {
        range.offset += encrypted.begin();
      }
    }
    engine::Plan plan = engine::make_plan(on_device, {.chunk_size = traits.chunk_size});
    if (plan.chunks.empty()) {
      continue;
    }
    const int useful = engine::choose_num_threads(options_.num_threads, plan, traits.parallelism);
    num_threads = std::max(num_threads, useful);
    bytes += plan.bytes;
    num_chunks += plan.chunks.size();
    std::unique_ptr<engine::ChunkSink> sink;
    if (device.is_cpu()) {
      std::vector<std::byte*> targets;
      for (const Loaded& loaded : loaded_) {
        const bool here = loaded.contiguous.is_cpu();
        targets.push_back(here ? static_cast<std::byte*>(loaded.contiguous.mutable_data_ptr()) : nullptr);
      }
      sink = std::make_unique<engine::HostSink>(std::move(targets));
    } else {
      std::vector<at::Tensor> targets;
      for (const Loaded& loaded : loaded_) {
        targets.push_back(loaded.contiguous.device() == device ? bytes_of(loaded.contiguous) : at::Tensor());
      }
      sink = make_device_sink(device, std::move(targets), plan, useful, kMaxStagingBytes / devices.size(), options_.pinning,
                              options_.helper, decrypts_there ? get(options_.cipher) : nullptr);
    }
    legs_.push_back({file, std::move(plan), std::move(sink)});
  }
  const engine::Readers readers = options_.num_threads == 0 ? engine::Readers::kAsManyAsPay : engine::Readers::kFixed;
  job_.start(bytes <= traits.inline_bytes ? 0 : num_threads, bytes, num_chunks,
             {.run = [this, readers](engine::Job& job, size_t) { engine::load_chunks(job, legs_, readers); }});
}

std::tuple<int64_t, int64_t> LoadJob::progress() const {
  return {static_cast<int64_t>(job_.bytes_done()), static_cast<int64_t>(job_.bytes_total())};
}

void LoadJob::complete() {
  job_.wait(std::nullopt);
  try {
    job_.rethrow_if_failed();
  } catch (const Error& error) {
    throw Error(error).in_file(file_->uri());  // a copy: another thread may be told of the same failure
  }
  finish();
}

TensorDict LoadJob::result() {
  complete();
  TensorDict tensors;
  tensors.reserve(loaded_.size());
  for (size_t i = 0; i < header_.tensors.size(); ++i) {
    tensors.insert(header_.tensors[i].name, loaded_[i].tensor);
  }
  return tensors;
}

std::tuple<std::vector<std::string>, std::vector<at::Tensor>> LoadJob::result_lists() {
  complete();
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;
  names.reserve(loaded_.size());
  tensors.reserve(loaded_.size());
  for (size_t i = 0; i < header_.tensors.size(); ++i) {
    names.push_back(header_.tensors[i].name);
    tensors.push_back(loaded_[i].tensor);
  }
  return {std::move(names), std::move(tensors)};
}

void LoadJob::finish() {
  if (std::exchange(finished_, true) || !writes_existing_) {
    return;
  }
  const c10::InferenceMode inference;
  std::vector<at::Device> copying;
  for (Loaded& loaded : loaded_) {
    const at::Tensor target = loaded.tensor.detach();
    if (!holds_its_bytes(target)) {
      target.copy_(loaded.contiguous);
      if (target.is_cpu()) {
        loaded.contiguous.reset();
      } else if (std::find(copying.begin(), copying.end(), target.device()) == copying.end()) {
        copying.push_back(target.device());
      }
    }
    if (!loaded.tensor.is_inference()) {
      // So that autograd notices if it had saved the old values.
      loaded.tensor.unsafeGetTensorImpl()->bump_version();
    }
  }
  // What was copied from goes with the job. It belongs to the stream on which the load began, and this may be another one.
  for (const at::Device device : copying) {
    c10::impl::VirtualGuardImpl(device.type()).getStream(device).synchronize();
  }
}

std::vector<std::string> LoadJob::warnings() const {
  std::vector<std::string> all = file_->warnings();
  if (!warning_.empty()) {
    all.push_back(warning_);
  }
  return valid_utf8(all);
}

StringDict LoadJob::metadata() const {
  StringDict metadata;
  if (header_.metadata) {
    for (const auto& [key, value] : *header_.metadata) {
      metadata.insert(key, value);
    }
  }
  return metadata;
}

}  // namespace veturbo
