#include "torch/load_job.h"

#include <ATen/Functions.h>
#include <ATen/MemoryOverlap.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <unordered_set>

#include "base/concat.h"
#include "torch/arena.h"
#include "torch/device_tensors.h"
#include "torch/dtype.h"
#include "torch/errors.h"
#include "torch/tensor_memory.h"

namespace veturbo {

namespace {

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

// Whether the bytes in the tensor's memory are its values, in order. Those of a view that conjugates or negates lazily are not.
bool holds_its_bytes(const at::Tensor& tensor) {
  return tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

// Why the file's tensor cannot be written into `tensor`; empty when it can.
std::string mismatch(const TensorSpec& spec, const at::Tensor& tensor) {
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

// What one plan reads it must read once.
void check_for_overlap(std::span<const Piece> pieces) {
  std::vector<engine::FileRange> ranges;
  for (const Piece& piece : pieces) {
    ranges.push_back(piece.range);
  }
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].offset < ranges[i - 1].offset + ranges[i - 1].size) {
      throw Error(ErrorKind::kInvalidArgument, "parts of a tensor overlap: load them one after the other");
    }
  }
}

// The bytes of a part as the tensor that they are.
at::Tensor view_of(const at::Tensor& bytes, const TensorSpec& spec, at::IntArrayRef strides) {
  return at::empty({0}, bytes.options().dtype(spec.type)).set_(bytes.storage(), 0, spec.sizes, strides);
}

}  // namespace

LoadJob::LoadJob(std::vector<Model> models, const LoadOptions& options) : models_(std::move(models)) {
  uri_ = models_.size() == 1 ? models_.front()->uri() : "";
  try {
    want_tensors(options.names);
    allocate(with_index(options.device.value_or(at::kCPU)), options.mmap);
    start(options.transfer);
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

LoadJob::LoadJob(std::vector<Model> models, const LoadOptions& options, const TensorDict& into) : models_(std::move(models)) {
  uri_ = models_.size() == 1 ? models_.front()->uri() : "";
  try {
    want_tensors(options.names);
    adopt(into);
    start(options.transfer);
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

LoadJob::LoadJob(const Model& model, const LoadOptions& options, const std::vector<std::string>& names,
                 const std::vector<engine::View>& views)
    : models_{model}, uri_(model->uri()) {
  // What lies between wanted elements takes memory until the part is handed out: no more than that of keeping them apart.
  constexpr uint64_t kMaxGapInMemory = 64;
  try {
    device_ = with_index(options.device.value_or(at::kCPU));
    if (names.size() != views.size()) {
      throw Error(ErrorKind::kInvalidArgument, concat(names.size(), " names need as many views, not ", views.size()));
    }
    std::vector<engine::SlicePlan> plans;
    for (size_t i = 0; i < names.size(); ++i) {
      const format::TensorEntry& entry = model->at(names[i]);
      TensorSpec spec = spec_of(entry);
      const uint64_t item_bytes = c10::scalarTypeToTypeMeta(spec.type).itemsize();
      try {
        plans.push_back(engine::plan_slice(views[i], entry.num_bytes() / item_bytes, item_bytes, kMaxGapInMemory));
      } catch (Error& error) {
        throw error.in_tensor(entry.name);
      }
      const engine::SlicePlan& plan = plans.back();
      wanted_.push_back({0, &entry});
      spec.sizes.assign(views[i].sizes.begin(), views[i].sizes.end());
      parts_.push_back({std::move(spec), {plan.strides.begin(), plan.strides.end()}, plan.is_dense});
    }
    start_parts(plans, options.transfer);
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

LoadJob::LoadJob(Source source, const TransferOptions& options, const std::vector<at::Tensor>& into,
                 const std::vector<int64_t>& offsets)
    : uri_(source.file->uri()), writes_existing_(true) {
  try {
    if (into.size() != offsets.size()) {
      throw Error(ErrorKind::kInvalidArgument, concat(into.size(), " buffers need as many offsets, not ", offsets.size()));
    }
    const uint64_t file_size = source.file->size();
    std::vector<Piece> pieces;
    for (size_t i = 0; i < into.size(); ++i) {
      const at::Tensor& buffer = into[i];
      check_buffer(buffer);
      const engine::FileRange range = {static_cast<uint64_t>(offsets[i]), buffer.nbytes()};
      if (offsets[i] < 0 || range.offset > file_size || range.size > file_size - range.offset) {
        throw Error(ErrorKind::kInvalidArgument,
                    concat(range.size, " bytes from ", offsets[i], " on are not in the file, which has ", file_size));
      }
      pieces.push_back({.source = 0, .range = range, .target = static_cast<uint32_t>(i)});
      loaded_.push_back({buffer, buffer});
    }
    transfer_.start({std::move(source)}, into, pieces, options, 0);
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

void LoadJob::want_tensors(const std::optional<std::vector<std::vector<std::string>>>& names) {
  if (names && names->size() != models_.size()) {
    throw Error(ErrorKind::kInvalidArgument, concat(models_.size(), " files need as many lists of names, not ", names->size()));
  }
  for (uint32_t model = 0; model < models_.size(); ++model) {
    if (names) {
      want_some(model, (*names)[model]);
      continue;
    }
    for (const format::TensorEntry& entry : models_[model]->header().tensors) {
      wanted_.push_back({model, &entry});
    }
  }
  if (models_.size() > 1) {
    check_for_repeated_names();
  }
}

void LoadJob::want_some(uint32_t model, const std::vector<std::string>& names) {
  std::vector<const format::TensorEntry*> entries;
  std::set<std::string> missing;
  for (const std::string& name : names) {
    const format::TensorEntry* const entry = models_[model]->find(name);
    if (entry == nullptr) {
      missing.insert(name);
    } else {
      entries.push_back(entry);
    }
  }
  if (!missing.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                concat("the file has no tensor named ", join({missing.begin(), missing.end()}, ", ")))
        .in_file(models_[model]->uri());
  }
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  for (const format::TensorEntry* const entry : entries) {
    wanted_.push_back({model, entry});
  }
}

void LoadJob::check_for_repeated_names() const {
  std::unordered_map<std::string_view, const Wanted*> seen;
  for (const Wanted& wanted : wanted_) {
    const auto [first, is_first] = seen.emplace(wanted.entry->name, &wanted);
    if (!is_first) {
      throw Error(ErrorKind::kInvalidArgument, concat("the tensor \"", wanted.entry->name, "\" is in ", uri_of(*first->second),
                                                      " as well: say by names which one to load"))
          .in_file(uri_of(wanted));
    }
  }
}

void LoadJob::allocate(at::Device device, bool mmap) {
  device_ = device;
  is_mapped_.resize(models_.size());
  const std::vector<engine::FileRange> all = ranges();
  size_t end = 0;
  for (uint32_t model = 0; model < models_.size(); ++model) {
    const size_t begin = end;
    while (end < wanted_.size() && wanted_[end].model == model) {
      ++end;
    }
    const std::span<const Wanted> wanted = std::span(wanted_).subspan(begin, end - begin);
    try {
      if (!device.is_cpu()) {
        allocate_on_device(wanted);
      } else if (mmap && may_map(*models_[model])) {
        is_mapped_[model] = true;
        map(wanted);
      } else {
        allocate_in_arena(wanted, std::span(all).subspan(begin, end - begin));
      }
    } catch (Error& error) {
      throw error.in_file(models_[model]->uri());
    }
  }
}

void LoadJob::allocate_on_device(std::span<const Wanted> some) {
  std::vector<TensorSpec> specs;
  specs.reserve(some.size());
  for (const Wanted& wanted : some) {
    specs.push_back(spec_of(*wanted.entry));
  }
  for (const at::Tensor& tensor : empty_on_device(specs, device_)) {
    loaded_.push_back({tensor, tensor});
  }
}

void LoadJob::map(std::span<const Wanted> some) {
  for (const Wanted& wanted : some) {
    const at::Tensor tensor = models_[wanted.model]->map_tensor(*wanted.entry);
    loaded_.push_back({tensor, tensor});
  }
}

void LoadJob::allocate_in_arena(std::span<const Wanted> some, std::span<const engine::FileRange> ranges) {
  std::vector<TensorSpec> specs;
  specs.reserve(some.size());
  for (const Wanted& wanted : some) {
    specs.push_back(spec_of(*wanted.entry));
  }
  const ArenaLayout layout = lay_out_arena(ranges);
  // Without what lies before and between them: the former is never touched, the latter a few bytes, and who has room for a
  // model's tensors can load it.
  for (const engine::FileRange& range : ranges) {
    host_bytes_ += range.size;
  }
  const auto arena = std::make_shared<MappedRegion>(MappedRegion::anonymous(layout.size));
  for (size_t i = 0; i < specs.size(); ++i) {
    const at::Tensor tensor =
        tensor_over(arena, layout.offsets[i], ranges[i].size, specs[i].sizes, specs[i].type, Reclaim::kDiscardPages);
    loaded_.push_back({tensor, tensor});
  }
}

bool LoadJob::may_map(const ModelReader& model) {
  const std::string storage = model.source().file->too_far_to_map();
  if (storage.empty()) {
    return true;
  }
  static std::mutex mutex;
  static std::unordered_set<std::string> said;
  std::lock_guard lock(mutex);
  if (said.insert(storage).second) {
    warnings_.push_back(concat(model.uri(), ": read instead of mapped, as all that is on ", storage,
                               " and not in the page cache: a mapping would wait for it at every few pages (this is said once)"));
  }
  return false;
}

void LoadJob::adopt(const TensorDict& into) {
  writes_existing_ = true;
  std::vector<std::string> faults;
  std::unordered_set<std::string_view> in_file;
  for (const Wanted& wanted : wanted_) {
    const std::string& name = wanted.entry->name;
    in_file.insert(name);
    const auto found = into.find(name);
    if (found == into.end()) {
      faults.push_back(concat("\"", name, "\" is in the file but not among the tensors"));
      continue;
    }
    const std::string fault = mismatch(spec_of(*wanted.entry), found->value());
    if (!fault.empty()) {
      faults.push_back(concat("\"", name, "\" ", fault));
      continue;
    }
    const at::Tensor tensor = found->value().detach();
    loaded_.push_back({found->value(), holds_its_bytes(tensor) ? tensor : at::empty(tensor.sizes(), tensor.options())});
    host_bytes_ += holds_its_bytes(tensor) || !tensor.is_cpu() ? 0 : tensor.nbytes();
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
  ranges.reserve(wanted_.size());
  for (const Wanted& wanted : wanted_) {
    ranges.push_back({models_[wanted.model]->header().data_offset + wanted.entry->begin, wanted.entry->num_bytes()});
  }
  return ranges;
}

void LoadJob::start(const TransferOptions& options) {
  std::vector<Piece> pieces;
  if (!device_.is_meta()) {
    const std::vector<engine::FileRange> all = ranges();
    for (uint32_t i = 0; i < all.size(); ++i) {
      const uint32_t model = wanted_[i].model;
      if (is_mapped_.empty() || !is_mapped_[model]) {
        pieces.push_back({.source = model, .range = all[i], .target = i});
      }
    }
  }
  start(pieces, options);
}

void LoadJob::start_parts(std::span<const engine::SlicePlan> plans, const TransferOptions& options) {
  std::vector<Piece> pieces;
  std::vector<engine::FileRange> on_cpu;  // what is put together there: empty for what is not
  for (uint32_t i = 0; i < plans.size(); ++i) {
    const engine::SlicePlan& plan = plans[i];
    const uint64_t begin = models_.front()->header().data_offset + wanted_[i].entry->begin;
    uint64_t filled = 0;
    for (const uint64_t offset : plan.block_offsets) {
      pieces.push_back({.source = 0, .range = {begin + offset, plan.block_size}, .target = i, .offset = filled});
      filled += plan.block_size;
    }
    // A device is sent a part in one piece, without what lies between its elements.
    const bool goes_straight = !device_.is_cpu() && plan.is_dense && plan.block_offsets.size() <= 1;
    at::Tensor buffer;
    if (goes_straight) {
      buffer = at::empty({static_cast<int64_t>(filled)}, at::TensorOptions(at::kByte).device(device_));
    }
    loaded_.push_back({{}, buffer});
    on_cpu.push_back({plan.block_offsets.empty() ? 0 : begin + plan.block_offsets.front(), goes_straight ? 0 : filled});
    host_bytes_ += on_cpu.back().size + (plan.is_dense ? 0 : num_bytes(parts_[i].spec));
  }
  check_for_overlap(pieces);
  std::vector<at::Tensor> buffers = buffers_for(on_cpu, at::kCPU);
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (!loaded_[i].contiguous.defined()) {
      loaded_[i].contiguous = std::move(buffers[i]);
    }
  }
  if (device_.is_meta()) {
    pieces.clear();
  }
  start(pieces, options);
}

void LoadJob::start(std::span<const Piece> pieces, const TransferOptions& options) {
  std::vector<Source> sources;
  sources.reserve(models_.size());
  for (const Model& model : models_) {
    sources.push_back(model->source());
  }
  std::vector<at::Tensor> targets;
  targets.reserve(loaded_.size());
  for (const Loaded& loaded : loaded_) {
    targets.push_back(loaded.contiguous);
  }
  check_host_bytes(host_bytes_, options.max_host_bytes);
  transfer_.start(std::move(sources), std::move(targets), pieces, options, host_bytes_);
}

std::tuple<int64_t, int64_t> LoadJob::progress() const {
  const engine::Job& job = transfer_.job();
  return {static_cast<int64_t>(job.bytes_done()), static_cast<int64_t>(job.bytes_total())};
}

void LoadJob::complete() {
  engine::Job& job = transfer_.job();
  job.wait(std::nullopt);
  try {
    job.rethrow_if_failed();
  } catch (const Error& error) {
    throw Error(error).in_file(uri_);  // a copy: another thread may be told of the same failure
  }
  if (!std::exchange(finished_, true)) {
    finish_existing();
    finish_parts();
  }
}

TensorDict LoadJob::result() {
  complete();
  TensorDict tensors;
  tensors.reserve(loaded_.size());
  for (size_t i = 0; i < wanted_.size(); ++i) {
    tensors.insert(wanted_[i].entry->name, loaded_[i].tensor);
  }
  return tensors;
}

std::tuple<std::vector<std::string>, std::vector<at::Tensor>> LoadJob::result_lists() {
  complete();
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;
  names.reserve(loaded_.size());
  tensors.reserve(loaded_.size());
  for (size_t i = 0; i < wanted_.size(); ++i) {
    names.push_back(wanted_[i].entry->name);
    tensors.push_back(loaded_[i].tensor);
  }
  return {std::move(names), std::move(tensors)};
}

void LoadJob::finish_existing() {
  if (!writes_existing_) {
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

void LoadJob::finish_parts() {
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    const at::Tensor view = view_of(std::exchange(loaded_[i].contiguous, {}), part.spec, part.strides);
    const at::Tensor dense = part.is_dense ? view : view.clone(at::MemoryFormat::Contiguous);
    loaded_[i].tensor = dense.device() == device_ ? dense : dense.to(device_);
  }
}

std::vector<std::string> LoadJob::warnings() const {
  std::vector<std::string> all = transfer_.warnings();
  all.insert(all.end(), warnings_.begin(), warnings_.end());
  return readable(all);
}

StringDict LoadJob::metadata() const {
  StringDict metadata;
  for (const Model& model : models_) {
    if (model->header().metadata) {
      for (const auto& [key, value] : *model->header().metadata) {
        metadata.insert(key, value);
      }
    }
  }
  return metadata;
}

}  // namespace veturbo
