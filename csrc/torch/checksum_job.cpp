#include "torch/checksum_job.h"

#include <optional>

#include "base/cpu_count.h"
#include "engine/checksum.h"
#include "torch/chunk_source.h"
#include "torch/tensor_memory.h"

namespace veturbo {

namespace {

constexpr uint64_t kChunkBytes = uint64_t{8} << 20;
// What a thread would take longer to start than to do.
constexpr uint64_t kInlineBytes = uint64_t{1} << 20;

}  // namespace

ChecksumJob::ChecksumJob(const std::vector<at::Tensor>& buffers, int64_t num_threads, const OptionalHelper& helper)
    : buffers_(buffers) {
  engine::check_num_threads(num_threads);
  std::vector<engine::FileRange> ranges;
  uint64_t size = 0;
  for (const at::Tensor& buffer : buffers_) {
    check_buffer(buffer);
    ranges.push_back({size, buffer.nbytes()});
    size += buffer.nbytes();
  }
  plan_ = engine::make_plan(ranges, {.chunk_size = kChunkBytes});
  of_segments_.resize(plan_.segments.size());
  const int threads = size <= kInlineBytes ? 0 : engine::choose_num_threads(num_threads, plan_, available_cpus());
  TensorSource source = make_source(buffers_, plan_, threads, helper);
  source_ = std::move(source.source);
  job_.start(source.workers, size, plan_.chunks.size(), {.run = [this](engine::Job& job, size_t worker) {
               engine::checksum_chunks(job, worker, plan_, *source_, of_segments_);
             }});
}

std::vector<int64_t> ChecksumJob::result() {
  job_.wait(std::nullopt);
  job_.rethrow_if_failed();
  const std::vector<uint32_t> checksums = engine::combine_checksums(plan_, of_segments_, buffers_.size());
  return {checksums.begin(), checksums.end()};
}

}  // namespace veturbo
