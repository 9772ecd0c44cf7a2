#include "torch/copy_stream.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#ifdef VETURBO_WITH_CUDA
#include <c10/cuda/CUDAStream.h>

#include "cuda/stream.h"
#endif

namespace veturbo {

#ifdef VETURBO_WITH_CUDA

void CopyStream::Destroy::operator()(CUstream_st* stream) const noexcept {
  try {
    const c10::DeviceGuard guard(device);
    cuda::destroy_stream(stream);
  } catch (...) {
    // A device that has failed has no streams.
  }
}

CopyStream::OwnStream CopyStream::make_own(c10::Device device) {
  const c10::DeviceGuard guard(device);
  return {device.is_cuda() ? cuda::create_stream() : nullptr, Destroy{device}};
}

#else

void CopyStream::Destroy::operator()(CUstream_st*) const noexcept {}

CopyStream::OwnStream CopyStream::make_own(c10::Device device) {
  return {nullptr, Destroy{device}};
}

#endif

c10::Stream CopyStream::as_torchs(c10::Device device) const {
#ifdef VETURBO_WITH_CUDA
  if (own_) {
    return c10::cuda::getStreamFromExternal(own_.get(), device.index()).unwrap();
  }
#endif
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/false);
}

CopyStream::CopyStream(c10::Device device) : own_(make_own(device)), stream_(as_torchs(device)) {
  c10::Event event(device.type());
  event.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  event.block(stream_);
}

CopyStream::~CopyStream() {
  try {
    stream_.synchronize();
  } catch (...) {
    // A device that has failed copies no more.
  }
}

}  // namespace veturbo
