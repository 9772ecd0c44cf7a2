#include "torch/tensor_memory.h"

#include <ATen/Functions.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/StorageImpl.h>

#include "base/error.h"

namespace veturbo {

namespace {

struct Slice {
  std::shared_ptr<MappedRegion> region;
  uint64_t offset;
  uint64_t size;
  Reclaim reclaim;
};

void delete_slice(void* context) {
  const std::unique_ptr<Slice> slice(static_cast<Slice*>(context));
  // The last one unmaps everything at once.
  if (slice->reclaim == Reclaim::kDiscardPages && slice->region.use_count() > 1) {
    slice->region->remove_user(slice->offset, slice->size);
  }
}

}  // namespace

at::Tensor tensor_over(const std::shared_ptr<MappedRegion>& region, uint64_t offset, uint64_t num_bytes, at::IntArrayRef sizes,
                       at::ScalarType type, Reclaim reclaim) {
  if (num_bytes == 0) {
    return at::empty(sizes, at::TensorOptions(type));
  }
  if (reclaim == Reclaim::kDiscardPages) {
    region->add_user(offset, num_bytes);
  }
  auto slice = std::make_unique<Slice>(Slice{region, offset, num_bytes, reclaim});
  at::DataPtr data(region->data() + offset, slice.get(), delete_slice, at::Device(at::kCPU));
  static_cast<void>(slice.release());
  // With an allocator the storage can be resized like any other of PyTorch's.
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), num_bytes, std::move(data),
                                                       c10::GetCPUAllocator(), /*resizable=*/true);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU),
                                                               c10::scalarTypeToTypeMeta(type));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return tensor;
}

void check_buffer(const at::Tensor& buffer) {
  if (buffer.scalar_type() != at::kByte || !buffer.is_contiguous()) {
    throw Error(ErrorKind::kInvalidArgument, "a buffer must be a contiguous tensor of dtype uint8");
  }
}

at::Tensor bytes_of(const at::Tensor& tensor) {
  const int64_t size = static_cast<int64_t>(tensor.nbytes());
  const int64_t offset = tensor.storage_offset() * static_cast<int64_t>(tensor.itemsize());
  return at::empty({0}, tensor.options().dtype(at::kByte)).set_(tensor.storage(), offset, {size}, {1});
}

}  // namespace veturbo
