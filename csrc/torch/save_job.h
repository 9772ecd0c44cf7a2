#pragma once

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "engine/job.h"
#include "engine/late_source.h"
#include "engine/plan.h"
#include "engine/save.h"
#include "storage/writable_file.h"
#include "torch/io_helper.h"
#include "torch/load_job.h"

namespace veturbo {

// A save under way. The tensors must not be changed before it has ended. The file stands under its name when result() returns,
// and not at all if it throws or if the job is dropped before its end.
class SaveJob : public torch::CustomClassHolder {
 public:
  // Makes what is to be written to, given how many bytes that will be.
  using OpenForWrite = std::function<std::unique_ptr<storage::WritableFile>(uint64_t size)>;

  // `uri` stands for the file in errors.
  SaveJob(const TensorDict& tensors, const std::string& uri, const OpenForWrite& open, const std::optional<StringDict>& metadata,
          int64_t num_threads, const OptionalHelper& helper);
  // Of contiguous tensors of uint8 that fill the file without holes, each from its offset on. Of those whose indices are in
  // `late` nothing is read before ready().
  SaveJob(const std::vector<at::Tensor>& buffers, const std::vector<int64_t>& offsets, const std::vector<int64_t>& late,
          const std::string& uri, const OpenForWrite& open, int64_t num_threads, const OptionalHelper& helper);
  ~SaveJob() override { cancel(); }

  void ready();

  // As LoadJob's.
  bool wait(double seconds) { return job_.wait_seconds(seconds); }
  void cancel();
  std::tuple<int64_t, int64_t> progress() const;

  // Waits for the end. Throws what made the save fail; gives the guarantees that the storage could not keep, a sentence each.
  std::vector<std::string> result();

 private:
  void start(std::span<const engine::FileRange> ranges, const OpenForWrite& open, int64_t num_threads,
             const OptionalHelper& helper, std::vector<bool> is_late);

  std::string uri_;
  std::string header_;
  std::vector<at::Tensor> tensors_;              // the plan's targets
  std::unique_ptr<storage::WritableFile> file_;  // none once the save has failed
  engine::Plan plan_;
  std::unique_ptr<engine::ChunkSource> source_;
  engine::LateSource* late_ = nullptr;  // the source, where it is one
  engine::Job job_;                     // last: its threads use all of the above
};

}  // namespace veturbo
