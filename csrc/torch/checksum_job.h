#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/job.h"
#include "engine/plan.h"
#include "engine/save.h"
#include "torch/io_helper.h"

namespace veturbo {

// The CRC-32 of each of many buffers, under way. They must not be changed meanwhile.
class ChecksumJob : public torch::CustomClassHolder {
 public:
  // Contiguous tensors of uint8.
  ChecksumJob(const std::vector<at::Tensor>& buffers, int64_t num_threads, const OptionalHelper& helper);

  // As LoadJob's.
  bool wait(double seconds) { return job_.wait_seconds(seconds); }
  void cancel() { job_.cancel(); }

  // Waits for the end. Throws what made the job fail.
  std::vector<int64_t> result();

 private:
  std::vector<at::Tensor> buffers_;
  engine::Plan plan_;
  std::unique_ptr<engine::ChunkSource> source_;
  std::vector<uint32_t> of_segments_;
  engine::Job job_;  // last: its threads use all of the above
};

}  // namespace veturbo
