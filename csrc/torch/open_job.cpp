#include "torch/open_job.h"

namespace veturbo {

OpenJob::OpenJob(const std::string& file, storage::DirectIo direct_io, const OptionalCipher& cipher) {
  job_.start(1, 0, 0, {.run = [this, file, direct_io, cipher](engine::Job&, size_t) {
               reader_ = c10::make_intrusive<ModelReader>(file, direct_io, cipher);
             }});
}

c10::intrusive_ptr<ModelReader> OpenJob::result() {
  job_.wait(std::nullopt);
  job_.rethrow_if_failed();
  return reader_;
}

}  // namespace veturbo
