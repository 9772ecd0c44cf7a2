#pragma once

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "engine/job.h"
#include "engine/load.h"
#include "format/safetensors.h"
#include "storage/open.h"
#include "torch/cipher.h"
#include "torch/io_helper.h"

namespace veturbo {

using TensorDict = c10::Dict<std::string, at::Tensor>;
using StringDict = c10::Dict<std::string, std::string>;

struct LoadOptions {
  std::optional<at::Device> device;  // none: the CPU
  int64_t num_threads = 0;           // 0: as many as pay
  Pinning pinning = Pinning::kPinned;
  storage::DirectIo direct_io = storage::DirectIo::kAuto;
  bool mmap = false;  // of consequence for the CPU only
  std::optional<std::vector<std::string>> names;
  OptionalHelper helper;
  OptionalCipher cipher;
};

// A load under way. The file's header has been read and all memory allocated when the constructor returns; the data is read by
// threads that live as long as the job, or by then for a small file.
class LoadJob : public torch::CustomClassHolder {
 public:
  // Into new tensors.
  LoadJob(const std::string& file, LoadOptions options);
  // Into tensors that exist: `device` and `mmap` are not used. Names, shapes and dtypes are checked before the first byte is
  // written.
  LoadJob(const std::string& file, LoadOptions options, const TensorDict& into);
  // Bytes of any file, from these offsets on, into contiguous tensors of dtype uint8 which they fill. They must not overlap.
  LoadJob(const std::string& file, LoadOptions options, const std::vector<at::Tensor>& into, const std::vector<int64_t>& offsets);

  // Waits for at most `seconds`, negative: without end; true when the job has ended, well or badly.
  bool wait(double seconds) { return job_.wait_seconds(seconds); }
  void cancel() { job_.cancel(); }
  // Bytes done and in all.
  std::tuple<int64_t, int64_t> progress() const;
  // The tensors, in the order of the file, once they are there. Throws what made the load fail.
  TensorDict result();
  // The same as names and tensors apart, of which Python makes its dict in half the time.
  std::tuple<std::vector<std::string>, std::vector<at::Tensor>> result_lists();
  StringDict metadata() const;
  // What those who have waited for it should know, one sentence each.
  std::vector<std::string> warnings() const;

 private:
  struct Loaded {
    at::Tensor tensor;      // what result() hands out
    at::Tensor contiguous;  // what is read into; another one where `tensor` is strided or a lazy view
  };

  void select(const std::vector<std::string>& names);
  void allocate();
  void allocate_in_arena();
  void read_what_is_too_far_to_map();
  void map_file();
  void adopt(const TensorDict& into);
  // Where the tensors' bytes are in the file.
  std::vector<engine::FileRange> ranges() const;
  // Empty ranges are not read.
  void start(const std::vector<engine::FileRange>& ranges);
  // Waits for the data and brings them to where they are to go.
  void complete();
  void finish();

  LoadOptions options_;
  std::unique_ptr<storage::ReadableFile> file_;
  format::SafetensorsHeader header_;  // of the tensors that are asked for
  std::vector<Loaded> loaded_;        // one a tensor of the header
  bool writes_existing_ = false;
  bool finished_ = false;
  std::string warning_;
  std::vector<engine::LoadLeg> legs_;
  engine::Job job_;  // last: its threads use all of the above
};

}  // namespace veturbo
