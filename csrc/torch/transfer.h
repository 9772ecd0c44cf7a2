#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/job.h"
#include "engine/load.h"
#include "engine/plan.h"
#include "storage/open.h"
#include "storage/readable_file.h"
#include "torch/cipher.h"
#include "torch/io_helper.h"
#include "torch/staging_memory.h"

namespace veturbo {

// A file to read from; with a cipher, one that was opened with it.
struct Source {
  std::shared_ptr<storage::ReadableFile> file;
  OptionalCipher cipher;
};

// Throws as storage::open_for_read().
Source open_source(const std::string& file, storage::DirectIo direct_io, const OptionalCipher& cipher);

// Bytes of a source, and where they go.
struct Piece {
  uint32_t source;
  engine::FileRange range;
  uint32_t target;
  uint64_t offset = 0;  // in the target
};

struct TransferOptions {
  int64_t num_threads = 0;  // 0: as many as pay
  Pinning pinning = Pinning::kPinned;
  OptionalHelper helper = std::nullopt;
  // What the load may take of the host's memory, in bytes: its tensors there and its staging memory, but not what is mapped.
  // None: what the process's control group may use.
  std::optional<uint64_t> max_host_bytes = std::nullopt;
};

// Throws Error(kOutOfMemory) when a load would take more than that.
void check_host_bytes(uint64_t bytes, const std::optional<uint64_t>& max_host_bytes);

// Bytes of any number of files on their way into tensors on any devices, all through one pool of threads, which live as long as
// it does, or less for few bytes; or longer, where the storage does not answer (see engine::Job::drop).
class Transfer {
 public:
  Transfer() = default;
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Once. `targets` are contiguous, or undefined where no piece goes. Pieces may not overlap, neither in a file nor in memory;
  // empty ones are not read. `host_bytes` of the host's memory the load has taken already.
  void start(std::vector<Source> sources, std::vector<at::Tensor> targets, std::span<const Piece> pieces,
             const TransferOptions& options, uint64_t host_bytes);

  engine::Job& job() { return state_->job; }
  const engine::Job& job() const { return state_->job; }
  // The files' warnings.
  std::vector<std::string> warnings() const;

 private:
  // What the threads use.
  struct State {
    std::vector<Source> sources;
    std::vector<at::Tensor> targets;
    std::vector<engine::LoadLeg> legs;
    engine::Job job;  // last: its threads use all of the above
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace veturbo
