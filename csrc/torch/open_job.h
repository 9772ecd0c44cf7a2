#pragma once

#include <torch/custom_class.h>

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>

#include "engine/job.h"
#include "storage/open.h"
#include "torch/cipher.h"
#include "torch/model_reader.h"

namespace veturbo {

// The opening of a model under way: a server that does not answer may keep a header for ever, which a user must be able to end.
class OpenJob : public torch::CustomClassHolder {
 public:
  // `is_only`: no other is opened meanwhile. Then a file that the system opens is opened by the caller, which may throw, and the
  // header of one of this machine is read by it, too.
  OpenJob(const std::string& file, storage::DirectIo direct_io, const OptionalCipher& cipher, bool is_only);
  ~OpenJob() override { engine::Job::drop({state_, &state_->job}); }

  // As LoadJob's.
  bool wait(double seconds) { return state_->job.wait_seconds(seconds); }
  void cancel() { state_->job.cancel(); }
  std::tuple<int64_t, int64_t> progress() const { return {0, 0}; }
  c10::intrusive_ptr<ModelReader> result();

 private:
  struct State {
    c10::intrusive_ptr<ModelReader> reader;
    engine::Job job;  // last: its thread uses the above
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace veturbo
