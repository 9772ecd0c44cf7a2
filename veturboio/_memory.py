"""Models that are in memory, or in a file object."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch


@runtime_checkable
class Readable(Protocol):
    """A file object that is open for reading bytes."""

    def read(self) -> Any: ...


#: A model in memory, or a file object that is read to its end.
Memory: TypeAlias = "bytes | bytearray | memoryview | Readable"

#: What stands for them in errors.
MEMORY_NAME = "<memory>"

# A path has no NUL byte. Every safetensors file and every zip archive has one among its first.
_FIRST_BYTES = 64


def is_memory(file: Any) -> bool:
    """Whether this is such a model, and no path. Of `bytes`, which are both, the content tells."""
    if isinstance(file, str):
        return False  # and at once: asking whether it is Readable takes a tenth of a millisecond the first time
    if isinstance(file, bytes):
        return b"\0" in file[:_FIRST_BYTES]
    return isinstance(file, bytearray | memoryview | Readable)


def read_memory(file: Memory) -> bytes | bytearray | memoryview:
    """All there is in it."""
    if isinstance(file, bytes | bytearray | memoryview):
        return file
    data = file.read()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"a file object must be open for reading bytes; its read() gave a {type(data).__name__}")
    return data


def as_tensor(data: bytes | bytearray | memoryview) -> torch.Tensor:
    """A tensor of dtype uint8 over the memory, to be read only. Memory that is no array is copied."""
    view = memoryview(data)
    if view.nbytes == 0:
        return torch.empty(0, dtype=torch.uint8)
    if not view.readonly and view.c_contiguous:
        return torch.frombuffer(view.cast("B"), dtype=torch.uint8)
    # torch.frombuffer() warns of memory that may not be written, which this array does not say of itself.
    whole = data if isinstance(data, bytes) else view.tobytes()
    array = (ctypes.c_ubyte * len(whole)).from_address(ctypes.cast(ctypes.c_char_p(whole), ctypes.c_void_p).value or 0)
    array.owner = whole  # type: ignore[attr-defined]
    return torch.frombuffer(array, dtype=torch.uint8)
