#pragma once

#include <c10/core/Stream.h>

#include <memory>

struct CUstream_st;

namespace veturbo {

// A stream of its own for the copies to and from a device, behind all that the caller has queued there: memory that the allocator
// hands out may still be in use by earlier work of the caller's stream, and tensors to be saved may still be computed on it.
//
// On CUDA it is not one of PyTorch's pool, which makes 32 at once, of each priority, when it is first asked for one: that takes
// 3 ms.
class CopyStream {
 public:
  explicit CopyStream(c10::Device device);
  // Waits for what was queued on it.
  ~CopyStream();
  CopyStream(const CopyStream&) = delete;
  CopyStream& operator=(const CopyStream&) = delete;

  const c10::Stream& get() const { return stream_; }

 private:
  struct Destroy {
    c10::Device device;
    void operator()(CUstream_st* stream) const noexcept;
  };
  using OwnStream = std::unique_ptr<CUstream_st, Destroy>;  // none where PyTorch's pool is used

  static OwnStream make_own(c10::Device device);
  c10::Stream as_torchs(c10::Device device) const;

  OwnStream own_;
  c10::Stream stream_;
};

}  // namespace veturbo
