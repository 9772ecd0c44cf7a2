#include "torch/open_job.h"

#include <utility>

namespace veturbo {

OpenJob::OpenJob(const std::string& file, storage::DirectIo direct_io, const OptionalCipher& cipher, bool is_only) {
  Source source;
  if (is_only && storage::is_local(file)) {
    source = open_source(file, direct_io, cipher);
  }
  // Starting a thread takes longer than reading a header from the page cache.
  const bool waits = !source.file || !source.file->is_near();
  state_->job.start(
      waits ? 1 : 0, 0, 0,
      {.run = [&reader = state_->reader, file, direct_io, cipher, source = std::move(source)](engine::Job&, size_t) {
        reader = c10::make_intrusive<ModelReader>(source.file ? source : open_source(file, direct_io, cipher));
      }});
}

c10::intrusive_ptr<ModelReader> OpenJob::result() {
  state_->job.wait(std::nullopt);
  state_->job.rethrow_if_failed();
  return state_->reader;
}

}  // namespace veturbo
