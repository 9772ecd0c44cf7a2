// What PyTorch sees of the simulated accelerator (device.h), as its device type PrivateUse1: the guard with streams and events,
// both allocators, the operators that veTurboIO and its tests need, and for all others PyTorch's own detour over the CPU.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "device.h"

namespace {

using fake::Machine;
using fake::StreamId;

constexpr at::DeviceType kType = at::kPrivateUse1;

thread_local int current_device = 0;
thread_local std::array<int64_t, fake::kNumDevices> current_streams = {};

int checked_index(at::Device device) {
  const int index = device.has_index() ? device.index() : current_device;
  TORCH_CHECK(device.type() == kType && index < fake::kNumDevices, "the fake accelerator has no device ", device);
  return index;
}

StreamId current_stream(at::Device device) {
  const int index = checked_index(device);
  return {index, current_streams[static_cast<size_t>(index)]};
}

StreamId to_id(const c10::Stream& stream) {
  return {checked_index(stream.device()), stream.id()};
}

c10::Stream to_stream(StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, at::Device(kType, static_cast<at::DeviceIndex>(id.device)), id.index);
}

// Streams and events.

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  at::DeviceType type() const override { return kType; }
  at::DeviceIndex deviceCount() const noexcept override { return fake::kNumDevices; }
  at::Device getDevice() const override { return {kType, static_cast<at::DeviceIndex>(current_device)}; }
  void setDevice(at::Device device) const override { current_device = checked_index(device); }
  void uncheckedSetDevice(at::Device device) const noexcept override { current_device = device.index(); }
  at::Device exchangeDevice(at::Device device) const override {
    const at::Device before = getDevice();
    setDevice(device);
    return before;
  }

  c10::Stream getStream(at::Device device) const override { return to_stream(current_stream(device)); }
  c10::Stream getDefaultStream(at::Device device) const override { return to_stream({checked_index(device), 0}); }
  c10::Stream getStreamFromGlobalPool(at::Device device, bool) const override {
    return to_stream(Machine::get().next_in_pool(checked_index(device)));
  }
  c10::Stream getNewStream(at::Device device, int) const override { return getStreamFromGlobalPool(device, false); }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = getStream(stream.device());
    current_streams[static_cast<size_t>(checked_index(stream.device()))] = stream.id();
    return before;
  }
  bool queryStream(const c10::Stream& stream) const override { return Machine::get().is_idle(to_id(stream)); }
  void synchronizeStream(const c10::Stream& stream) const override { Machine::get().synchronize(to_id(stream)); }
  void synchronizeDevice(at::DeviceIndex index) const override { Machine::get().synchronize_device(index); }

  void record(void** event, const c10::Stream& stream, at::DeviceIndex, c10::EventFlag) const override {
    if (*event == nullptr) {
      *event = new std::shared_ptr<fake::Event>(std::make_shared<fake::Event>());
    }
    Machine::get().record(shared(*event), to_id(stream));
  }
  void block(void* event, const c10::Stream& stream) const override { Machine::get().block(shared(event), to_id(stream)); }
  bool queryEvent(void* event) const override { return Machine::get().is_reached(*shared(event)); }
  void synchronizeEvent(void* event) const override { Machine::get().synchronize(*shared(event)); }
  void destroyEvent(void* event, at::DeviceIndex) const noexcept override {
    delete static_cast<std::shared_ptr<fake::Event>*>(event);
  }

  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    if (data.get_context() != nullptr) {
      Machine::get().record_use(reinterpret_cast<uintptr_t>(data.get_context()), to_id(stream));
    }
  }

 private:
  static const std::shared_ptr<fake::Event>& shared(void* event) { return *static_cast<std::shared_ptr<fake::Event>*>(event); }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

// Memory.

struct DeviceAllocator final : c10::Allocator {
  at::DataPtr allocate(size_t size) override {
    const at::Device device(kType, static_cast<at::DeviceIndex>(current_device));
    if (size == 0) {
      return {nullptr, device};
    }
    void* const address = reinterpret_cast<void*>(Machine::get().allocate(current_stream(device), size));
    return {address, address, release, device};
  }
  at::DeleterFnPtr raw_deleter() const override { return release; }
  void copy_data(void*, const void*, size_t) const override { TORCH_CHECK(false, "the CPU cannot copy device memory"); }
  static void release(void* address) {
    if (address != nullptr) {
      Machine::get().free(reinterpret_cast<uintptr_t>(address));
    }
  }
};

struct PinnedAllocator final : at::HostAllocator {
  at::DataPtr allocate(size_t size) override {
    if (size == 0) {
      return {nullptr, at::Device(at::kCPU)};
    }
    void* const address = Machine::get().allocate_pinned(size);
    return {address, address, release, at::Device(at::kCPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return release; }
  void copy_data(void* to, const void* from, size_t size) const override { default_copy_data(to, from, size); }
  // PyTorch's allocator would then keep the memory until the stream is done; ours insists that its user waits.
  bool record_event(void*, void*, c10::Stream) override { return true; }
  void empty_cache() override { Machine::get().empty_pinned_cache(); }
  at::HostStats get_stats() override { return {}; }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
  static void release(void* address) {
    if (address != nullptr) {
      Machine::get().free_pinned(address);
    }
  }
};

DeviceAllocator device_allocator;
PinnedAllocator pinned_allocator;

REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &device_allocator)
REGISTER_HOST_ALLOCATOR(at::kPrivateUse1, &pinned_allocator)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(at::DeviceIndex) const override { return true; }
  at::DeviceIndex deviceCount() const override { return fake::kNumDevices; }
  at::DeviceIndex getCurrentDevice() const override { return static_cast<at::DeviceIndex>(current_device); }
  void setCurrentDevice(at::DeviceIndex index) const override { current_device = checked_index(at::Device(kType, index)); }
  at::DeviceIndex exchangeDevice(at::DeviceIndex index) const override {
    const at::DeviceIndex before = getCurrentDevice();
    setCurrentDevice(index);
    return before;
  }
  at::DeviceIndex maybeExchangeDevice(at::DeviceIndex index) const override { return exchangeDevice(index); }
  bool isPinnedPtr(const void* pointer) const override { return Machine::get().is_pinned(pointer); }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
};

[[maybe_unused]] const bool hooks_registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

// Operators.

at::Tensor empty(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(
      at::Device(kType, static_cast<at::DeviceIndex>(checked_index(device.value_or(at::Device(kType))))));
  return at::detail::empty_generic(sizes, &device_allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(
      at::Device(kType, static_cast<at::DeviceIndex>(checked_index(device.value_or(at::Device(kType))))));
  return at::detail::empty_strided_generic(sizes, strides, &device_allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) {
  const size_t end = strides.empty() ? at::detail::computeStorageNbytesContiguous(sizes, self.itemsize(), offset)
                                     : at::detail::computeStorageNbytes(sizes, strides, self.itemsize(), offset);
  TORCH_CHECK(self.device() == storage.device(), "set_: the storage is on ", storage.device(), ", the tensor on ", self.device());
  TORCH_CHECK(c10::multiply_integers(sizes) == 0 || end <= storage.nbytes(), "set_: needs ", end, " bytes of ", storage.nbytes());
  at::TensorImpl* const tensor = self.unsafeGetTensorImpl();
  tensor->set_storage_keep_dtype(std::move(storage));
  if (strides.empty()) {
    tensor->set_sizes_contiguous(sizes);
    tensor->set_storage_offset(offset);
  } else {
    tensor->set_sizes_and_strides(sizes, strides, offset);
  }
  return self;
}

at::Tensor& set_whole_storage(at::Tensor& self, at::Storage storage) {
  const int64_t size = static_cast<int64_t>(storage.nbytes() / self.itemsize());
  return set_storage(self, std::move(storage), 0, {size}, {});
}

// The tensor as a thread of the device sees it: a CPU tensor over the same bytes, which it does not own.
at::Tensor on_the_inside(const at::Tensor& tensor) {
  void* data = const_cast<void*>(tensor.const_data_ptr());
  if (tensor.device().type() == kType) {
    data = Machine::get().alias(reinterpret_cast<uintptr_t>(data));
  }
  at::Tensor inside = at::from_blob(data, tensor.sizes(), tensor.strides(), at::TensorOptions(tensor.scalar_type()));
  if (tensor.is_conj()) {
    inside = at::_conj(inside);
  }
  return tensor.is_neg() ? at::_neg_view(inside) : inside;
}

fake::Range range_of(const at::Tensor& tensor) {
  return {reinterpret_cast<uintptr_t>(tensor.const_data_ptr()),
          at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.itemsize())};
}

void copy_bytes(const at::Tensor& to, const at::Tensor& from) {
  const bool same = to.scalar_type() == from.scalar_type() && to.is_conj() == from.is_conj() && to.is_neg() == from.is_neg();
  if (same && to.is_contiguous() && from.is_contiguous()) {
    std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), to.nbytes());
  } else {
    const c10::InferenceMode inference;  // the tensors may have been made in it
    to.copy_(from);
  }
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool non_blocking) {
  if (to.numel() == 0) {
    return to;
  }
  const at::Tensor from = self.expand(to.sizes());
  const bool to_device = to.device().type() == kType;
  const bool from_device = from.device().type() == kType;
  Machine& machine = Machine::get();
  const StreamId stream = current_stream(to_device ? to.device() : from.device());
  const StreamId other = to_device && from_device ? current_stream(from.device()) : stream;
  const auto wait_for = [&machine](StreamId waiting, StreamId awaited) {
    if (waiting != awaited) {
      const auto event = std::make_shared<fake::Event>();
      machine.record(event, awaited);
      machine.block(event, waiting);
    }
  };
  wait_for(stream, other);
  machine.queue_copy(
      stream, [to = on_the_inside(to), from = on_the_inside(from)] { copy_bytes(to, from); }, {range_of(to), range_of(from)},
      static_cast<int64_t>(to.nbytes()));
  wait_for(other, stream);
  // As on a real one, only what touches the host's memory waits, and memory that is not pinned is not copied behind one's back.
  const bool on_device = to_device && from_device;
  const void* const host = to_device ? from.const_data_ptr() : to.const_data_ptr();
  if (!on_device && (!non_blocking || !machine.is_pinned(host))) {
    machine.synchronize(stream);
  }
  return to;
}

// For the results of operators that took the way over the CPU.
at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  TORCH_CHECK(self.sizes() == to.sizes(), "the fake accelerator cannot resize tensors");
  return copy_from(self, to, /*non_blocking=*/false);
}

at::Scalar local_scalar(const at::Tensor& self) {
  return self.cpu().item();
}

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("as_strided", at::native::as_strided_tensorimpl);
  library.impl("view", at::native::view);
  library.impl("_reshape_alias", at::native::_reshape_alias);
  library.impl("set_.source_Storage", set_whole_storage);
  library.impl("set_.source_Storage_storage_offset", set_storage);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", local_scalar);
}

// These resolve lazy views by a clone, which again is a copy: ours takes them as they are.
TORCH_LIBRARY_IMPL(aten, Conjugate, library) {
  library.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, Negative, library) {
  library.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
}

}  // namespace
