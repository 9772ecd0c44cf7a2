#include "torch/file_stream.h"

#include <array>
#include <optional>
#include <utility>

#include "base/error.h"
#include "engine/cipher.h"
#include "engine/job.h"
#include "engine/load.h"
#include "engine/stream_writer.h"
#include "torch/errors.h"

namespace veturbo {

namespace {

void check_bytes(const at::Tensor& tensor, const std::string& uri) {
  if (!tensor.is_cpu() || !tensor.is_contiguous()) {
    throw Error(ErrorKind::kInvalidArgument, "only contiguous CPU tensors can be read into and written").in_file(uri);
  }
}

}  // namespace

FileReader::FileReader(const std::string& file, const OptionalCipher& cipher)
    : file_(engine::open_for_read(file, {}, get(cipher))) {}

void FileReader::read_into(const at::Tensor& tensor, int64_t offset) const {
  check_bytes(tensor, file_->uri());
  if (offset < 0) {
    throw Error(ErrorKind::kInvalidArgument, "an offset cannot be negative").in_file(file_->uri());
  }
  const uint64_t begin = static_cast<uint64_t>(offset);
  std::byte* const target = static_cast<std::byte*>(tensor.mutable_data_ptr());
  const storage::ReadTraits traits = file_->traits();
  if (tensor.nbytes() <= traits.chunk_size) {
    file_->read_at(begin, {target, tensor.nbytes()});
    return;
  }
  const std::array<engine::FileRange, 1> range = {{{begin, tensor.nbytes()}}};
  std::vector<engine::LoadLeg> legs;
  legs.push_back({file_.get(), engine::make_plan(range, {.chunk_size = traits.chunk_size}),
                  std::make_unique<engine::HostSink>(std::vector{target})});
  const engine::Plan& plan = legs.front().plan;
  engine::Job job;
  job.start(engine::choose_num_threads(0, plan, traits.parallelism), plan.bytes, plan.chunks.size(),
            {.run = [&](engine::Job& running, size_t) { engine::load_chunks(running, legs); }});
  job.wait(std::nullopt);
  job.rethrow_if_failed();
}

std::vector<std::string> FileReader::warnings() const {
  return readable(file_->warnings());
}

FileWriter::FileWriter(const std::string& file, const OptionalCipher& cipher)
    : stream_(std::make_unique<engine::StreamWriter>(engine::open_for_write(file, 0, get(cipher)))) {}

engine::StreamWriter& FileWriter::stream() const {
  if (!stream_) {
    throw Error(ErrorKind::kInvalidArgument, "the file has been committed or discarded");
  }
  return *stream_;
}

void FileWriter::write(const at::Tensor& tensor) {
  check_bytes(tensor, stream().uri());
  stream().write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
}

std::vector<std::string> FileWriter::commit() {
  stream();
  return readable(std::exchange(stream_, nullptr)->commit());
}

void FileWriter::discard() {
  stream_.reset();
}

}  // namespace veturbo
