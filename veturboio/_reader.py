"""A model that is opened once and read a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from veturboio._arguments import FilePath, MapLocation, target_device, thread_count
from veturboio._cipher import Bytes
from veturboio._errors import python_errors
from veturboio._io_helper import IOHelper, helper_of_several
from veturboio._jobs import finish_load, warn
from veturboio._library import ops
from veturboio._memory import Memory
from veturboio._models import Models, checked_names, open_safetensors

_SMALL_BYTES = 1 << 20


@dataclass(frozen=True)
class TensorInfo:
    """What a file's header says of a tensor.

    Attributes:
        name: Its name.
        dtype: As the file has it: "F32", "BF16".
        shape: As the file has it: in elements, of which F4 has two in each of PyTorch's.
        num_bytes: Its size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


class TensorSlice:
    """A tensor of which only what it is indexed with is read: `reader.slice("weight")[:, 1024:2048]`.

    Integers, slices, `...` and None read what they ask for and small gaps between it. Anything else that PyTorch can index with
    (lists, tensors) reads the whole tensor first.

    Attributes:
        shape: The tensor's.
        dtype: PyTorch's.
    """

    def __init__(self, name: str, outline: torch.Tensor, read: Callable[[torch.Tensor | None], torch.Tensor]) -> None:
        self._name = name
        self._outline = outline
        self._read = read
        self.shape = outline.shape
        self.dtype = outline.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        """As of the tensor itself, in memory of its own. IndexError, TypeError, ValueError: as PyTorch raises them."""
        with torch.inference_mode(False):
            part = self._outline[index]
        if part.untyped_storage()._cdata == self._outline.untyped_storage()._cdata:  # a view
            return self._read(part)
        return self._read(None)[index]

    def __repr__(self) -> str:
        return f"TensorSlice({self._name!r}, shape={list(self.shape)}, dtype={self.dtype})"


class ModelReader:
    """A model that is open: see open(). May be used by many threads at once."""

    def __init__(self, models: Models, device: torch.device, transfer: dict[str, Any]) -> None:
        self._models: Models | None = models
        self._title = models.title
        self._device = device
        self._transfer = transfer
        self._entries: dict[str, tuple[str, list[int], int]] = {}  # what TensorInfo holds, which takes long to make of all
        self._file_of: dict[str, Any] = {}
        self._is_mappable: bool | None = None  # not known yet
        for index, native in enumerate(models.native):
            with python_errors():
                names, dtypes, shapes = native.list_tensors()
                entries = dict(zip(names, zip(dtypes, shapes, native.tensor_sizes(), strict=True), strict=True))
            if models.names is not None:
                entries = {name: entries[name] for name in models.names[index]}
            self._entries.update(entries)
            self._file_of.update(dict.fromkeys(entries, native))

    def keys(self) -> list[str]:
        """The names of the tensors, in the order of the data, one file's after the other's."""
        self._open()
        return list(self._entries)

    def metadata(self) -> dict[str, str] | None:
        """The model's metadata; None if it has none. Of several files all have theirs in it."""
        return self._open().metadata()

    def info(self, name: str) -> TensorInfo:
        """What the header says of a tensor. ValueError when there is none of that name."""
        self._open()
        if name not in self._entries:
            raise ValueError(f"{self._title}: the model has no tensor named {name}")
        dtype, shape, size = self._entries[name]
        return TensorInfo(name, dtype, tuple(shape), size)

    def tensor(self, name: str, *, mmap: bool = False) -> torch.Tensor:
        """Loads one tensor. Arguments and errors as of tensors()."""
        if self._device.type == "cpu" and name in self and self.is_mappable:
            native = self._file_of[name]
            with python_errors():
                if mmap:
                    return native.map_tensor(name)  # type: ignore[no-any-return]
                if self._entries[name][2] <= _SMALL_BYTES:  # near as it is, it is there before a job would have begun
                    return native.read_tensor(name)  # type: ignore[no-any-return]
        return self.tensors([name], mmap=mmap)[name]

    def tensors(self, names: Iterable[str] | None = None, *, mmap: bool = False) -> dict[str, torch.Tensor]:
        """Loads some of the tensors, all at once.

        Args:
            names: Their names; None for all.
            mmap: On the CPU, map the file instead of reading it, as load() does. A reader maps a file once: who asks for a
                tensor again gets the same memory, and sees what has been written to it.

        Returns:
            Names and tensors, in the order of the model. They stay valid when the reader is closed.

        Raises:
            ValueError: The model has no tensor of such a name (all such are listed), or the reader is closed.
            And what load() raises.
        """
        models = self._open()
        of_each = models.names if names is None else self._of_each_file(checked_names(names))
        with python_errors():
            job = ops.start_load_models(models.native, self._device, mmap=mmap, names=of_each, **self._transfer)
        tensors = finish_load(job)
        warn(job.warnings(), stacklevel=3)
        return tensors

    def slice(self, name: str) -> TensorSlice:
        """A tensor to be read in part. Nothing is read before it is indexed."""
        self.info(name)
        with python_errors():
            outline = self._file_of[name].meta_tensor(name)

        def read(part: torch.Tensor | None) -> torch.Tensor:
            self._open()
            if part is None:
                return self.tensor(name)
            with python_errors():
                job = ops.start_load_views(
                    self._file_of[name],
                    [name],
                    [part.storage_offset()],
                    [list(part.shape)],
                    [list(part.stride())],
                    self._device,
                    **self._transfer,
                )
            return finish_load(job)[name]  # type: ignore[no-any-return]

        return TensorSlice(name, outline, read)

    def to(self, map_location: MapLocation, num_thread: int | None = None) -> ModelReader:
        """A reader of the same open files whose tensors go to another device, or which reads with another number of threads."""
        transfer = {**self._transfer, "num_threads": thread_count(num_thread)}
        return ModelReader(self._open(), target_device(map_location), transfer)

    @property
    def is_mappable(self) -> bool:
        """Whether mmap=True maps: not what is encrypted, in memory already, or far away."""
        models = self._open()
        if self._is_mappable is None:
            self._is_mappable = all(native.is_mappable() for native in models.native)
        return self._is_mappable

    @property
    def is_cold(self) -> bool:
        """Whether a file of it is read from a disk, and not from the page cache: sooner than a mapping of it is touched."""
        return any(native.is_cold() for native in self._open().native)

    @property
    def bytes_read(self) -> int:
        """How many bytes the storage has been asked for so far, headers among them. What is mapped is not counted."""
        return sum(native.bytes_read() for native in self._open().native)

    def close(self) -> None:
        """Closes the files. Tensors that were handed out stay valid."""
        self._models = None
        self._transfer = {**self._transfer, "helper": None}
        self._file_of.clear()

    def __enter__(self) -> ModelReader:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        state = "closed" if self._models is None else f"{len(self._entries)} tensors"
        return f"ModelReader({self._title!r}, {state})"

    def _of_each_file(self, names: set[str]) -> list[list[str]]:
        if missing := sorted(name for name in names if name not in self._entries):
            raise ValueError(f"{self._title}: the model has no tensor named {', '.join(missing)}")
        native = self._open().native
        if len(native) == 1:
            return [list(names)]
        return [[name for name in names if self._file_of[name] is one] for one in native]

    def _open(self) -> Models:
        if self._models is None:
            raise ValueError(f"{self._title}: the reader is closed")
        return self._models


def open(
    file: FilePath | Memory,
    map_location: MapLocation = "cpu",
    num_thread: int | None = None,
    helper: IOHelper | None = None,
    use_pinmem: bool = False,
    use_direct_io: bool | None = None,
    use_cipher: bool | None = None,
    *,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> ModelReader:
    """Opens a safetensors model, of which then only what is asked for is read.

        >>> with veturboio.open("model.safetensors") as model:
        ...     model.info("weight").shape
        ...     rows = model.slice("weight")[1024:2048]

    The arguments are those of load().

    Raises:
        FileFormatError: The file is damaged, or one of torch.save.
        And what load() raises.
    """
    device = target_device(map_location)
    transfer = {"num_threads": thread_count(num_thread), "helper": helper_of_several(helper, use_pinmem)}
    models = open_safetensors(file, use_direct_io, use_cipher, key, iv)
    return ModelReader(models, device, transfer)
