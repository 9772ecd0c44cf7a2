#include "torch/save_job.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "torch/accelerator.h"
#include "torch/dtype.h"
#include "torch/errors.h"
#include "torch/tensor_memory.h"

namespace veturbo {

namespace {

format::TensorEntry entry_of(const std::string& name, const at::Tensor& tensor) {
  try {
    if (!tensor.defined()) {
      throw Error(ErrorKind::kInvalidArgument, "is not defined");
    }
    if (tensor.layout() != at::kStrided) {
      throw Error(ErrorKind::kInvalidArgument,
                  concat("has layout ", tensor.layout(), ", the format has only dense tensors: save its to_dense()"));
    }
    if (tensor.is_nested()) {
      throw Error(ErrorKind::kInvalidArgument,
                  "is nested, which the format cannot express: save its parts, or to_padded_tensor()");
    }
    if (tensor.is_quantized()) {
      throw Error(ErrorKind::kInvalidArgument,
                  "is quantized, which the format cannot express: save its int_repr(), scales and zero points");
    }
    if (tensor.is_meta()) {
      throw Error(ErrorKind::kInvalidArgument, "is on the meta device and has no data");
    }
    const std::optional<format::DType> dtype = to_dtype(tensor.scalar_type());
    if (!dtype) {
      throw Error(ErrorKind::kInvalidArgument, concat("has dtype ", tensor.scalar_type(), ", which the format does not have"));
    }
    format::TensorEntry entry;
    entry.name = name;
    entry.dtype = *dtype;
    entry.shape = to_file_shape(*dtype, tensor.sizes());
    return entry;
  } catch (Error& error) {
    throw error.in_tensor(name);
  }
}

// The tensor whose elements are to stand in the file. Views that conjugate or negate lazily are made real. One in host memory
// keeps its order of elements, whatever it is.
at::Tensor plain(const at::Tensor& tensor) {
  const at::Tensor real = tensor.detach().resolve_conj().resolve_neg();
  return real.is_cpu() ? real : real.contiguous();
}

engine::StridedMemory memory_of(const at::Tensor& tensor) {
  const int64_t item_size = static_cast<int64_t>(tensor.itemsize());
  engine::StridedMemory memory = {
      .data = static_cast<const std::byte*>(tensor.const_data_ptr()), .item_size = tensor.itemsize(), .sizes = {}, .strides = {}};
  if (!tensor.is_contiguous()) {
    memory.sizes = tensor.sizes().vec();
    for (const int64_t stride : tensor.strides()) {
      memory.strides.push_back(stride * item_size);
    }
  }
  return memory;
}

}  // namespace

SaveJob::SaveJob(const TensorDict& tensors, const std::string& uri, const OpenForWrite& open,
                 const std::optional<StringDict>& metadata, int64_t num_threads, const OptionalHelper& helper)
    : uri_(uri) {
  try {
    engine::check_num_threads(num_threads);
    std::vector<format::TensorEntry> entries;
    for (const auto& item : tensors) {
      entries.push_back(entry_of(item.key(), item.value()));
    }
    format::lay_out(entries);
    std::optional<format::Metadata> sorted_metadata;
    if (metadata) {
      sorted_metadata.emplace();
      for (const auto& item : *metadata) {
        sorted_metadata->emplace(item.key(), item.value());
      }
    }
    header_ = format::serialize_header(entries, sorted_metadata);

    std::vector<engine::FileRange> ranges = {{0, header_.size()}};
    bool all_on_cpu = true;
    for (const format::TensorEntry& entry : entries) {
      ranges.push_back({header_.size() + entry.begin, entry.num_bytes()});
      tensors_.push_back(plain(tensors.at(entry.name)));
      all_on_cpu = all_on_cpu && tensors_.back().is_cpu();
    }
    const uint64_t size = ranges.back().offset + ranges.back().size;
    file_ = open(size);
    const storage::WriteTraits traits = file_->traits();
    plan_ =
        engine::make_plan(ranges, {.chunk_size = traits.chunk_size, .run_size = traits.run_size, .run_shift = traits.run_shift});
    const int threads = engine::choose_num_threads(num_threads, plan_, traits.parallelism);
    int workers = plan_.bytes <= traits.inline_bytes ? 0 : threads;
    if (all_on_cpu) {
      std::vector<engine::StridedMemory> targets = {{reinterpret_cast<const std::byte*>(header_.data()), 1, {}, {}}};
      for (const at::Tensor& tensor : tensors_) {
        targets.push_back(memory_of(tensor));
      }
      source_ = std::make_unique<engine::HostSource>(std::move(targets), plan_, workers);
    } else {
      workers = std::min(workers, DeviceSource::max_workers(plan_));
      std::vector<at::Tensor> targets = {
          at::from_blob(header_.data(), {static_cast<int64_t>(header_.size())}, at::TensorOptions(at::kByte))};
      for (const at::Tensor& tensor : tensors_) {
        targets.push_back(bytes_of(tensor.contiguous()));
      }
      source_ = std::make_unique<DeviceSource>(std::move(targets), plan_, workers, helper);
    }
    job_.start(workers, plan_.bytes, plan_.runs.size(),
               {.run = [this](engine::Job& job, size_t worker) { engine::save_chunks(job, worker, *file_, plan_, *source_); },
                .finish = [this] { file_->commit(); },
                // At once, and not when the job dies: whoever looks at an exception keeps that alive.
                .abandon = [this] { file_.reset(); }});
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

std::tuple<int64_t, int64_t> SaveJob::progress() const {
  return {static_cast<int64_t>(job_.bytes_done()), static_cast<int64_t>(job_.bytes_total())};
}

std::vector<std::string> SaveJob::result() {
  job_.wait(std::nullopt);
  try {
    job_.rethrow_if_failed();
  } catch (const Error& error) {
    throw Error(error).in_file(uri_);  // a copy: another thread may be told of the same failure
  }
  return valid_utf8(file_->warnings());
}

}  // namespace veturbo
