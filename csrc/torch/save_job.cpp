#include "torch/save_job.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "torch/chunk_source.h"
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

// Where each buffer stands in a file that they fill without holes.
std::vector<engine::FileRange> ranges_of(const std::vector<at::Tensor>& buffers, const std::vector<int64_t>& offsets) {
  if (buffers.size() != offsets.size()) {
    throw Error(ErrorKind::kInvalidArgument, concat(buffers.size(), " buffers need as many offsets, not ", offsets.size()));
  }
  std::vector<engine::FileRange> ranges;
  for (size_t i = 0; i < buffers.size(); ++i) {
    check_buffer(buffers[i]);
    ranges.push_back({static_cast<uint64_t>(offsets[i]), buffers[i].nbytes()});
  }
  std::vector<engine::FileRange> sorted = ranges;
  std::erase_if(sorted, [](const engine::FileRange& range) { return range.size == 0; });
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  uint64_t end = 0;
  for (const engine::FileRange& range : sorted) {
    if (range.offset != end) {
      throw Error(ErrorKind::kInvalidArgument, concat("byte ", std::min(range.offset, end), " of the file is in ",
                                                      range.offset < end ? "two of the buffers" : "none of the buffers"));
    }
    end += range.size;
  }
  return ranges;
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
    tensors_.push_back(at::from_blob(header_.data(), {static_cast<int64_t>(header_.size())}, at::TensorOptions(at::kByte)));
    for (const format::TensorEntry& entry : entries) {
      ranges.push_back({header_.size() + entry.begin, entry.num_bytes()});
      tensors_.push_back(plain(tensors.at(entry.name)));
    }
    start(ranges, open, num_threads, helper, {});
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

SaveJob::SaveJob(const std::vector<at::Tensor>& buffers, const std::vector<int64_t>& offsets, const std::vector<int64_t>& late,
                 const std::string& uri, const OpenForWrite& open, int64_t num_threads, const OptionalHelper& helper)
    : uri_(uri), tensors_(buffers) {
  try {
    engine::check_num_threads(num_threads);
    std::vector<bool> is_late(late.empty() ? 0 : buffers.size());
    for (const int64_t index : late) {
      if (index < 0 || static_cast<uint64_t>(index) >= buffers.size()) {
        throw Error(ErrorKind::kInvalidArgument, concat("there is no buffer ", index));
      }
      is_late[static_cast<size_t>(index)] = true;
    }
    start(ranges_of(buffers, offsets), open, num_threads, helper, std::move(is_late));
  } catch (Error& error) {
    throw error.in_file(uri_);
  }
}

void SaveJob::start(std::span<const engine::FileRange> ranges, const OpenForWrite& open, int64_t num_threads,
                    const OptionalHelper& helper, std::vector<bool> is_late) {
  uint64_t size = 0;
  for (const engine::FileRange& range : ranges) {
    size = std::max(size, range.offset + range.size);
  }
  file_ = open(size);
  const storage::WriteTraits traits = file_->traits();
  plan_ =
      engine::make_plan(ranges, {.chunk_size = traits.chunk_size, .run_size = traits.run_size, .run_shift = traits.run_shift});
  const int threads = engine::choose_num_threads(num_threads, plan_, traits.parallelism);
  // Late bytes come from the calling thread.
  const bool is_inline = plan_.bytes <= traits.inline_bytes && is_late.empty();
  TensorSource source = make_source(tensors_, plan_, is_inline ? 0 : threads, helper);
  source_ = std::move(source.source);
  if (!is_late.empty()) {
    auto late = std::make_unique<engine::LateSource>(std::move(source_), std::move(is_late), plan_);
    late_ = late.get();
    source_ = std::move(late);
  }
  job_.start(source.workers, plan_.bytes, plan_.runs.size(),
             {.run = [this](engine::Job& job, size_t worker) { engine::save_chunks(job, worker, *file_, plan_, *source_); },
              .finish = [this] { file_->commit(); },
              // At once, and not when the job dies: whoever looks at an exception keeps that alive.
              .abandon = [this] { file_.reset(); }});
}

void SaveJob::cancel() {
  job_.cancel();
  ready();  // a worker that waits writes one more chunk, to a file that nobody will see
}

void SaveJob::ready() {
  if (late_ != nullptr) {
    late_->ready();
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
  return readable(file_->warnings());
}

}  // namespace veturbo
