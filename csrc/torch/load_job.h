#pragma once

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/slice.h"
#include "torch/model_reader.h"
#include "torch/transfer.h"

namespace veturbo {

using TensorDict = c10::Dict<std::string, at::Tensor>;

struct LoadOptions {
  std::optional<at::Device> device = std::nullopt;  // the CPU
  bool mmap = false;                                // of consequence for the CPU only
  // Of each model the tensors that are wanted; none: all.
  std::optional<std::vector<std::vector<std::string>>> names = std::nullopt;
  TransferOptions transfer;
};

// A load under way. The files' headers have been read and all memory allocated when the constructor returns; the data is read by
// threads that live as long as the job (see Transfer), or by then for a small file.
class LoadJob : public torch::CustomClassHolder {
 public:
  using Model = c10::intrusive_ptr<ModelReader>;

  // Into new tensors.
  LoadJob(std::vector<Model> models, const LoadOptions& options);
  // Into tensors that exist: `device` and `mmap` are not used. Names, shapes and dtypes are checked before the first byte is
  // written.
  LoadJob(std::vector<Model> models, const LoadOptions& options, const TensorDict& into);
  // Of each of these tensors a part, as new contiguous tensors; of `options` neither `names` nor `mmap` are used. The parts of
  // one tensor may not overlap.
  LoadJob(const Model& model, const LoadOptions& options, const std::vector<std::string>& names,
          const std::vector<engine::View>& views);
  // Bytes of any file, from these offsets on, into contiguous tensors of dtype uint8 which they fill. They must not overlap.
  LoadJob(Source source, const TransferOptions& options, const std::vector<at::Tensor>& into,
          const std::vector<int64_t>& offsets);

  // Waits for at most `seconds`, negative: without end; true when the job has ended, well or badly.
  bool wait(double seconds) { return transfer_.job().wait_seconds(seconds); }
  void cancel() { transfer_.job().cancel(); }
  // Bytes done and in all.
  std::tuple<int64_t, int64_t> progress() const;
  // The tensors, in the order of the files, once they are there. Throws what made the load fail.
  TensorDict result();
  // The same as names and tensors apart, of which Python makes its dict in half the time.
  std::tuple<std::vector<std::string>, std::vector<at::Tensor>> result_lists();
  // That of all the files; where two have the same key, of the first.
  StringDict metadata() const;
  // What those who have waited for it should know, one sentence each.
  std::vector<std::string> warnings() const;

 private:
  // A tensor that is wanted.
  struct Wanted {
    uint32_t model;
    const format::TensorEntry* entry;
  };
  struct Loaded {
    at::Tensor tensor;      // what result() hands out
    at::Tensor contiguous;  // what is read into; another one where `tensor` is strided, a lazy view or a part
  };
  // How the bytes that were read become a part of a tensor.
  struct Part {
    TensorSpec spec;
    std::vector<int64_t> strides;
    bool is_dense;
  };

  void want_tensors(const std::optional<std::vector<std::vector<std::string>>>& names);
  void want_some(uint32_t model, const std::vector<std::string>& names);
  void check_for_repeated_names() const;
  void allocate(at::Device device, bool mmap);
  void allocate_on_device(std::span<const Wanted> some);
  void map(std::span<const Wanted> some);
  void allocate_in_arena(std::span<const Wanted> some, std::span<const engine::FileRange> ranges);
  bool may_map(const ModelReader& model);
  void adopt(const TensorDict& into);
  // Where each tensor's bytes are in its file.
  std::vector<engine::FileRange> ranges() const;
  void start(const TransferOptions& options);
  void start_parts(std::span<const engine::SlicePlan> plans, const TransferOptions& options);
  void start(std::span<const Piece> pieces, const TransferOptions& options);
  // Waits for the data and brings them to where they are to go.
  void complete();
  void finish_existing();
  void finish_parts();
  const std::string& uri_of(const Wanted& wanted) const { return models_[wanted.model]->uri(); }

  std::vector<Model> models_;
  std::string uri_;              // what errors that tell of no file are about; empty for several files
  std::vector<Wanted> wanted_;   // in the order of the files
  std::vector<Loaded> loaded_;   // one each
  std::vector<Part> parts_;      // likewise, or none
  std::vector<bool> is_mapped_;  // one a model, or none of new tensors
  at::Device device_ = at::kCPU;
  uint64_t host_bytes_ = 0;  // that were allocated on the host for this load
  bool writes_existing_ = false;
  bool finished_ = false;
  std::vector<std::string> warnings_;
  Transfer transfer_;
};

}  // namespace veturbo
