"""safe_open: a file, of which only that is read, or mapped, which is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from veturboio._arguments import MapLocation
from veturboio._reader import ModelReader
from veturboio._reader import open as open_model
from veturboio.safetensors._arguments import (
    Filename,
    checked_backend,
    checked_device,
    checked_filename,
    checked_text,
    is_numpy,
)
from veturboio.safetensors._dtypes import TORCH_DTYPES
from veturboio.safetensors._errors import SafetensorError, reading
from veturboio.safetensors._prefetch import PrefetchLoader, checked_plan

_their_safe_open: Any
try:
    from safetensors import safe_open as _their_safe_open
except ImportError:
    _their_safe_open = None
_THEIR_FRAMEWORKS = ("tf", "tensorflow", "jax", "flax", "mlx", "paddle")


@dataclass(frozen=True)
class TensorMeta:
    """What the header says of a tensor: its dtype ("F32"), its shape, and where its bytes lie in the data."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class PySafeSlice:
    """A tensor of which only that is read which an index asks for. safe_open.get_slice() makes it."""

    def __init__(self, reader: ModelReader, name: str, filename: Filename, *, is_mapped: bool, as_numpy: bool) -> None:
        self._reader = reader
        self._name = name
        self._filename = filename
        self._is_mapped = is_mapped
        self._as_numpy = as_numpy

    def get_shape(self) -> list[int]:
        """The shape of the whole tensor."""
        return list(self._reader.info(self._name).shape)

    def get_dtype(self) -> str:
        """The file's word for its dtype, as "F32"."""
        return self._reader.info(self._name).dtype

    def __getitem__(self, index: Any) -> Any:
        """What this index gives of a tensor of PyTorch's."""
        if (dtype := self.get_dtype()) not in TORCH_DTYPES:
            raise SafetensorError(f"Dtype not understood: {dtype}")
        reader = self._reader
        with reading(self._filename):
            part = (reader.tensor(self._name, mmap=True) if self._is_mapped else reader.slice(self._name))[index]
        return part.numpy() if self._as_numpy else part


class safe_open:  # noqa: N801  the name that users know
    """Opens a file and gives its tensors as they are asked for, as safetensors.safe_open does.

    Args:
        filename: A path, as str or os.PathLike, or a uri: file://PATH, sfcs://PATH. A directory, or an index of shards
            (model.safetensors.index.json), opens as one model.
        framework: "pt" (also "torch", "pytorch") or "np" (also "numpy").
        device: Where the tensors go: any device of PyTorch's. An int is an index among the accelerators.
        backend: With "mmap" tensors on the CPU are views of a private mapping of the file: what is touched is read, and a write
            to a tensor does not reach the file. "pread" reads each into memory of its own. What cannot be mapped, or is so far
            away that each touch would wait for it, is read in any case.

    For other frameworks ("tf", "jax", "mlx", "paddle") what is made is an object of safetensors' own, where that is installed.

    Unlike safetensors it opens encrypted files, whose keys the environment gives as for veturboio.load(), and remote ones; a
    slice takes any index that PyTorch knows, whatever the backend; and the device must be there when the file is opened, not
    only when the first tensor is read. One object may be used by many threads at once.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        SafetensorError: It is damaged, or not a safetensors file; the device, framework or backend is not one.
        CipherKeyError: Nobody has its key.
    """

    def __new__(cls, filename: Filename, framework: str, device: MapLocation | None = "cpu", **options: str) -> Any:
        if framework in _THEIR_FRAMEWORKS and _their_safe_open is not None:
            return _their_safe_open(filename, framework, device, **options)
        return super().__new__(cls)

    def __init__(self, filename: Filename, framework: str, device: MapLocation | None = "cpu", *, backend: str = "mmap") -> None:
        self._filename = checked_filename(filename)
        self._device = checked_device(device)
        may_map = checked_backend(backend) == "mmap" and self._device.type == "cpu"
        self._as_numpy = is_numpy(framework, self._device)
        with reading(filename):
            reader = open_model(self._filename, map_location=self._device)
        self._open_reader: ModelReader | None = reader
        self._is_mapped = may_map and reader.is_mappable
        self._offsets: dict[str, tuple[int, int]] | None = None

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Let go of, not closed: slices and loaders that were handed out can still read, as those of safetensors can.
        self._open_reader = None

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def keys(self) -> list[str]:
        """The names of the tensors, sorted."""
        return sorted(self._reader.keys())

    def offset_keys(self) -> list[str]:
        """The names of the tensors, in the order of the data."""
        return self._reader.keys()

    def metadata(self) -> dict[str, str] | None:
        """The texts that were saved along, or None."""
        return self._reader.metadata()

    def get_tensor(self, name: str) -> Any:
        """A tensor. SafetensorError if the file does not contain it."""
        reader = self._reader_with(name)
        with reading(self._filename):
            tensor = reader.tensor(name, mmap=self._is_mapped)
        return tensor.numpy() if self._as_numpy else tensor

    def get_tensors(self) -> dict[str, Any]:
        """All tensors, in the order of the data."""
        reader = self._reader
        with reading(self._filename):
            tensors: dict[str, Any] = reader.tensors(mmap=self._is_mapped)
        return {name: tensor.numpy() for name, tensor in tensors.items()} if self._as_numpy else tensors

    def get_slice(self, name: str) -> PySafeSlice:
        """A tensor to take parts of: f.get_slice("embedding")[:, ::8]."""
        reader = self._reader_with(name)
        return PySafeSlice(reader, name, self._filename, is_mapped=self._is_mapped, as_numpy=self._as_numpy)

    def get_tensor_meta(self, name: str) -> TensorMeta:
        """What the header says of a tensor. Nothing is read."""
        reader = self._reader_with(name)
        info = reader.info(name)
        if self._offsets is None:
            self._offsets = data_offsets(reader)
        return TensorMeta(info.dtype, list(info.shape), self._offsets[name])

    def prefetch(
        self,
        plan: Mapping[str, slice | None] | None = None,
        *,
        device: MapLocation | None = None,
        threads: int = 8,
    ) -> PrefetchLoader:
        """Begins to read tensors, which the loader then hands out as they are there: see PrefetchLoader.

        Args:
            plan: The names of the tensors to read, with None for a whole tensor or a slice of its first dimension, of step 1.
                None: all of them.
            device: Where they go; None: where the others of this object go.
            threads: That read.

        safetensors does this for CUDA alone. Here it works for every device, and for encrypted and remote files, too.
        """
        whole_plan = checked_plan(self._reader, plan)
        if self._as_numpy:
            raise SafetensorError('prefetch is only compatible with framework="pt"')
        target = self._device if device is None else checked_device(device)
        target = torch.empty(0, device=target).device  # with its index: the thread that reads has a current device of its own
        with reading(self._filename):
            return PrefetchLoader(self._reader.to(target, num_thread=threads), whole_plan, self._filename)

    @property
    def _reader(self) -> ModelReader:
        reader = self._open_reader
        if reader is None:
            raise SafetensorError("File is closed")
        return reader

    def _reader_with(self, name: str) -> ModelReader:
        reader = self._reader
        if name not in reader:
            raise SafetensorError(f"File does not contain tensor {checked_text(name, 'name')}")
        return reader


def data_offsets(reader: ModelReader) -> dict[str, tuple[int, int]]:
    """Where the bytes of each tensor lie in the data: one after the other and without a gap, in the order of the names."""
    names = reader.keys()
    offsets = {}
    begin = 0
    for name in names:
        end = begin + reader.info(name).num_bytes
        offsets[name] = (begin, end)
        begin = end
    return offsets
