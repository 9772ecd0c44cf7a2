#include <ATen/FunctionalTensorWrapper.h>
#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>

#include "base/concat.h"
#include "base/cpu_count.h"
#include "base/error.h"
#include "crypto/keystream.h"
#include "engine/job.h"
#include "torch/cipher.h"
#include "torch/errors.h"

#ifdef VETURBO_WITH_CUDA
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "crypto/expanded_key.h"
#include "cuda/aes_ctr.h"
#endif

// The operator aes_ctr_decrypt_: for those who have a model's bytes in tensors already.
namespace veturbo {

namespace {

constexpr uint64_t kPieceBytes = uint64_t{1} << 20;
constexpr uint64_t kBytesPerThread = uint64_t{4} << 20;  // below, a thread costs more than it brings

void check(const at::Tensor& self, int64_t offset) {
  if (!self.is_contiguous() || self.layout() != at::kStrided) {
    throw Error(ErrorKind::kInvalidArgument, "the tensor to decrypt is not contiguous: its bytes have no order");
  }
  if (offset < 0) {
    throw Error(ErrorKind::kInvalidArgument, concat("offset is ", offset, ": it counts the bytes from the start of the stream"));
  }
}

crypto::DataKey data_key(const at::Tensor& key, const at::Tensor& iv) {
  engine::GivenKey given = given_key({.use_cipher = true, .key = key, .iv = iv});
  return crypto::make_data_key(std::move(*given.key), given.iv->bytes(), "key", "iv");
}

at::Tensor& decrypt_on_cpu(at::Tensor& self, const at::Tensor& key, const at::Tensor& iv, int64_t offset) {
  return with_errors([&]() -> at::Tensor& {
    check(self, offset);
    const std::unique_ptr<crypto::Keystream> keystream = crypto::make_keystream(data_key(key, iv));
    const std::span<std::byte> bytes(static_cast<std::byte*>(self.mutable_data_ptr()), self.nbytes());
    const uint64_t threads = std::min<uint64_t>(bytes.size() / kBytesPerThread, static_cast<uint64_t>(available_cpus()));
    engine::Job job;
    job.start(threads < 2 ? 0 : static_cast<int>(threads), bytes.size(), (bytes.size() + kPieceBytes - 1) / kPieceBytes,
              {.run =
                   [&](engine::Job& running, size_t) {
                     while (const auto piece = running.next_chunk()) {
                       const uint64_t begin = *piece * kPieceBytes;
                       keystream->apply(static_cast<uint64_t>(offset) + begin,
                                        bytes.subspan(begin, std::min(kPieceBytes, bytes.size() - begin)));
                     }
                   }});
    job.wait(std::nullopt);
    job.rethrow_if_failed();
    return self;
  });
}

#ifdef VETURBO_WITH_CUDA

at::Tensor& decrypt_on_cuda(at::Tensor& self, const at::Tensor& key, const at::Tensor& iv, int64_t offset) {
  return with_errors([&]() -> at::Tensor& {
    check(self, offset);
    const crypto::DataKey data = data_key(key, iv);
    const crypto::ExpandedKey expanded(data.key);
    const c10::DeviceGuard guard(self.device());
    cuda::aes_ctr(self.mutable_data_ptr(), self.nbytes(), static_cast<uint64_t>(offset), expanded.get(), data.iv,
                  c10::cuda::getCurrentCUDAStream(self.device().index()).stream());
    return self;
  });
}

#endif

at::Tensor& decrypt_on_meta(at::Tensor& self, const at::Tensor&, const at::Tensor&, int64_t offset) {
  return with_errors([&]() -> at::Tensor& {
    if (!self.is_meta()) {
      throw Error(ErrorKind::kInvalidArgument, "key or iv is on the meta device and has no bytes");
    }
    check(self, offset);
    return self;
  });
}

template <auto kDecrypt>
at::Tensor decrypt_copy(const at::Tensor& self, const at::Tensor& key, const at::Tensor& iv, int64_t offset) {
  at::Tensor copy = self.clone(at::MemoryFormat::Contiguous);
  return kDecrypt(copy, key, iv, offset);
}

// torch.compile turns operators that write into ones that return: for those of PyTorch by rules, for this one as said here, since
// it also returns what it writes to.
at::Tensor& decrypt_functionally(at::Tensor& self, const at::Tensor& key, const at::Tensor& iv, int64_t offset) {
  namespace functional = at::functionalization::impl;
  static const auto decrypt = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("veturbo::aes_ctr_decrypt", "")
                                  .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t)>();
  const auto unwrapped = [](const at::Tensor& tensor) {
    if (!functional::isFunctionalTensor(tensor)) {
      return tensor;
    }
    functional::sync(tensor);
    return functional::from_functional_tensor(tensor);
  };
  const at::Tensor plain_self = unwrapped(self);
  const at::Tensor plain_key = unwrapped(key);
  const at::Tensor plain_iv = unwrapped(iv);
  at::Tensor decrypted;
  {
    const at::AutoDispatchSkipFunctionalize guard;
    decrypted = decrypt.call(plain_self, plain_key, plain_iv, offset);
  }
  functional::replace_(self, decrypted);
  functional::commit_update(self);
  functional::sync(self);
  return self;
}

}  // namespace

TORCH_LIBRARY_IMPL(veturbo, CPU, library) {
  library.impl("aes_ctr_decrypt_", decrypt_on_cpu);
  library.impl("aes_ctr_decrypt", decrypt_copy<decrypt_on_cpu>);
}

#ifdef VETURBO_WITH_CUDA
TORCH_LIBRARY_IMPL(veturbo, CUDA, library) {
  library.impl("aes_ctr_decrypt_", decrypt_on_cuda);
  library.impl("aes_ctr_decrypt", decrypt_copy<decrypt_on_cuda>);
}
#endif

TORCH_LIBRARY_IMPL(veturbo, Meta, library) {
  library.impl("aes_ctr_decrypt_", decrypt_on_meta);
  library.impl("aes_ctr_decrypt", decrypt_copy<decrypt_on_meta>);
}

TORCH_LIBRARY_IMPL(veturbo, Functionalize, library) {
  library.impl("aes_ctr_decrypt_", decrypt_functionally);
}

// Nothing can be differentiated through it; a tensor that requires grad is refused, and autograd notices that values changed.
TORCH_LIBRARY_IMPL(veturbo, Autograd, library) {
  library.impl("aes_ctr_decrypt_", torch::autograd::autogradNotImplementedFallback());
  library.impl("aes_ctr_decrypt", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(veturbo, ADInplaceOrView, library) {
  library.impl("aes_ctr_decrypt_", torch::autograd::autogradNotImplementedInplaceOrViewFallback());
}

}  // namespace veturbo
