#include "torch/transfer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/concat.h"
#include "base/error.h"
#include "base/memory_limit.h"
#include "engine/cipher.h"
#include "storage/encrypted_file.h"
#include "torch/accelerator.h"
#include "torch/tensor_memory.h"

namespace veturbo {

namespace {

// What goes to one device.
struct Route {
  explicit Route(at::Device to) : device(to) {}

  at::Device device;
  std::vector<std::byte*> host_targets;
  std::vector<DeviceTarget> device_targets;
  std::vector<size_t> legs;
  size_t num_chunks = 0;
  uint64_t slot_bytes = 0;
  int num_threads = 0;

  uint32_t num_targets() const { return static_cast<uint32_t>(device.is_cpu() ? host_targets.size() : device_targets.size()); }

  void add_target(const at::Tensor& tensor, const Piece& piece, const engine::Cipher* cipher) {
    if (device.is_cpu()) {
      host_targets.push_back(static_cast<std::byte*>(tensor.mutable_data_ptr()) + piece.offset);
      return;
    }
    const at::Tensor bytes = bytes_of(tensor);
    const bool is_whole = piece.range.size == bytes.nbytes();
    device_targets.push_back(
        {is_whole ? bytes : bytes.narrow(0, static_cast<int64_t>(piece.offset), static_cast<int64_t>(piece.range.size)), cipher});
  }
};

// The pieces of each source, in groups by device.
struct Group {
  uint32_t source;
  size_t route;
  std::vector<uint32_t> pieces;
};

std::vector<Group> group_by_device(std::span<const Piece> pieces, std::span<const at::Tensor> targets, size_t num_sources,
                                   std::vector<Route>& routes) {
  std::vector<Group> groups;
  std::vector<std::vector<size_t>> of_source(num_sources);  // indices of groups
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    if (piece.range.size == 0) {
      continue;
    }
    const at::Device device = targets[piece.target].device();
    std::vector<size_t>& candidates = of_source[piece.source];
    auto found = std::find_if(candidates.begin(), candidates.end(),
                              [&](size_t candidate) { return routes[groups[candidate].route].device == device; });
    if (found == candidates.end()) {
      size_t route = 0;
      while (route < routes.size() && routes[route].device != device) {
        ++route;
      }
      if (route == routes.size()) {
        routes.emplace_back(device);
      }
      candidates.push_back(groups.size());
      groups.push_back({piece.source, route, {}});
      found = candidates.end() - 1;
    }
    groups[*found].pieces.push_back(i);
  }
  return groups;
}

}  // namespace

Source open_source(const std::string& file, storage::DirectIo direct_io, const OptionalCipher& cipher) {
  return {engine::open_for_read(file, {.direct_io = direct_io}, get(cipher)), cipher};
}

void check_host_bytes(uint64_t bytes, const std::optional<uint64_t>& max_host_bytes) {
  constexpr uint64_t kFewBytes = uint64_t{256} << 20;  // of which nobody has so little that it is worth asking the system
  const std::optional<uint64_t> limit = max_host_bytes || bytes < kFewBytes ? max_host_bytes : memory_limit();
  if (limit && bytes > *limit) {
    throw Error(ErrorKind::kOutOfMemory,
                concat("this load needs ", bytes, " bytes of the host's memory, and ",
                       max_host_bytes ? "max_host_bytes is " : "the control group of this process may use ", *limit,
                       ": load fewer tensors at a time (names), map the file (mmap), or load to an accelerator"));
  }
}

Transfer::~Transfer() {
  // A device comes to the end of its copies, and whoever drops a load to it counts on the memory.
  constexpr std::chrono::milliseconds kForHost(100);
  constexpr std::chrono::milliseconds kForDevice(5000);
  const bool is_to_host =
      std::ranges::all_of(state_->targets, [](const at::Tensor& target) { return !target.defined() || target.is_cpu(); });
  engine::Job::drop({state_, &state_->job}, is_to_host ? kForHost : kForDevice);
}

void Transfer::start(std::vector<Source> sources, std::vector<at::Tensor> targets, std::span<const Piece> pieces,
                     const TransferOptions& options, uint64_t host_bytes) {
  engine::check_num_threads(options.num_threads);
  state_->sources = std::move(sources);
  state_->targets = std::move(targets);
  std::vector<engine::LoadLeg>& legs = state_->legs;
  std::vector<Route> routes;
  uint64_t bytes = 0;
  size_t num_chunks = 0;
  int num_threads = 0;
  int most_threads = 1;
  uint64_t inline_bytes = UINT64_MAX;
  for (const Group& group : group_by_device(pieces, state_->targets, state_->sources.size(), routes)) {
    const Source& source = state_->sources[group.source];
    Route& route = routes[group.route];
    const storage::ReadTraits traits = source.file->traits();
    storage::ReadableFile* file = source.file.get();
    const engine::Cipher* decrypted_there = source.cipher && decrypts(route.device) ? get(source.cipher) : nullptr;
    uint64_t begin = 0;
    if (decrypted_there != nullptr) {
      const auto& encrypted = dynamic_cast<const storage::DecryptedFile&>(*file);
      file = &encrypted.ciphertext();
      begin = encrypted.begin();
    }
    std::vector<engine::FileRange> ranges;
    ranges.reserve(group.pieces.size());
    const uint32_t first_target = route.num_targets();
    for (const uint32_t index : group.pieces) {
      const Piece& piece = pieces[index];
      ranges.push_back({begin + piece.range.offset, piece.range.size});
      route.add_target(state_->targets[piece.target], piece, decrypted_there);
    }
    engine::Plan plan = engine::make_plan(ranges, {.chunk_size = traits.chunk_size, .max_gap = traits.max_gap});
    for (engine::Segment& segment : plan.segments) {
      segment.target += first_target;
    }
    const int useful = engine::choose_num_threads(options.num_threads, plan, traits.parallelism);
    num_threads += useful;
    most_threads = std::max(most_threads, options.num_threads > 0 ? static_cast<int>(options.num_threads) : traits.parallelism);
    bytes += plan.bytes;
    num_chunks += plan.chunks.size();
    inline_bytes = std::min(inline_bytes, traits.inline_bytes);
    route.num_threads += useful;
    route.num_chunks += plan.chunks.size();
    route.slot_bytes = std::max(route.slot_bytes, slot_size(plan));
    route.legs.push_back(legs.size());
    legs.push_back({file, std::move(plan), nullptr});
  }
  num_threads = std::min(num_threads, most_threads);
  for (Route& route : routes) {
    std::shared_ptr<engine::ChunkSink> sink;
    if (route.device.is_cpu()) {
      sink = std::make_shared<engine::HostSink>(std::move(route.host_targets));
    } else {
      const uint64_t staging_bytes = std::min(kMaxStagingBytes, options.max_host_bytes.value_or(UINT64_MAX) - host_bytes);
      check_host_bytes(host_bytes + routes.size() * route.slot_bytes, options.max_host_bytes);
      sink = make_device_sink(route.device, std::move(route.device_targets), route.num_chunks, route.slot_bytes,
                              std::min(route.num_threads, num_threads), staging_bytes / routes.size(), options.pinning,
                              options.helper);
    }
    for (const size_t leg : route.legs) {
      legs[leg].sink = sink;
    }
  }
  const engine::Readers readers = options.num_threads == 0 ? engine::Readers::kAsManyAsPay : engine::Readers::kFixed;
  state_->job.start(bytes <= inline_bytes ? 0 : num_threads, bytes, num_chunks,
                    {.run = [&legs, readers](engine::Job& job, size_t) { engine::load_chunks(job, legs, readers); }});
}

std::vector<std::string> Transfer::warnings() const {
  std::vector<std::string> all;
  for (const Source& source : state_->sources) {
    const std::vector<std::string> some = source.file->warnings();
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

}  // namespace veturbo
