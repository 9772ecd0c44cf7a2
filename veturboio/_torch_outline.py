"""Saves what torch.save saves, byte for byte: PyTorch writes the outline of its archive, the engine the tensors' bytes.

PyTorch pickles the object and lays out the archive, but where a storage's bytes belong it leaves a hole (skip_data). The engine
fills the holes from the storages' own memory, with as many threads and in such pieces as the file system likes. What PyTorch
could not know without the bytes, their checksums, is found meanwhile and put into the outline: behind each storage, in the
archive's directory, and in the serialization id, which PyTorch makes of them.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import IO, Any, cast

import torch

from veturboio._arguments import FilePath, operator_path
from veturboio._errors import python_errors
from veturboio._jobs import finish, give_up
from veturboio._library import ops

_DESCRIPTOR = b"PK\x07\x08"  # what stands behind an entry's bytes, and is followed by their checksum
# At the end, with PyTorch always: the long end of the directory, with its size; where that is; and the short end.
_LONG_END = struct.Struct("<4s36xQ8x")
_LONG_END_SIGNATURE = b"PK\x06\x06"
_ENDS_BYTES = _LONG_END.size + 20 + 22
# An entry of the directory: signature, flags, checksum, lengths of the name, the extra field and the comment.
_ENTRY = struct.Struct("<4s4xH6xI8xHHH12x")
_ENTRY_SIGNATURE = b"PK\x01\x02"
_CHECKSUM_IN_ENTRY = 16
_HAS_DESCRIPTOR = 8  # of the flags
_SERIALIZATION_ID = b".data/serialization_id"


class UnusualObjectError(Exception):
    """The object is one for PyTorch alone to write. Users never see it."""


class _Outline(io.RawIOBase):
    """What torch.save writes to, and skips data in."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.holes: list[tuple[int, int]] = []  # before which of the bytes, and its size

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.bytes += data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_CUR or offset <= 0:
            raise UnusualObjectError
        self.holes.append((len(self.bytes), offset))
        return offset


def start_save(value: Any, file: FilePath, cipher: Any) -> Any:
    """Begins a save and returns the job, which has only to be waited for.

    Raises:
        UnusualObjectError: The object is one for PyTorch alone to write.
        OSError: The file cannot be written.
    """
    outline, storages = _outline_of(value)
    names = [name for name, storage in storages.items() if storage.nbytes() > 0]
    data = [_bytes_of(storages[name]) for name in names]
    if [size for _, size in outline.holes] != [buffer.nbytes for buffer in data]:
        raise UnusualObjectError
    entries = _Directory(outline.bytes)
    buffers, offsets = _laid_out(outline, data)
    checksums = ops.start_checksum(data) if torch.serialization.get_crc32_options() else None
    late = [] if checksums is None else list(range(0, len(buffers), 2))
    jobs = [] if checksums is None else [checksums]
    try:
        with python_errors():
            job = ops.start_write(buffers, offsets, operator_path(file), late=late, cipher=cipher)
        jobs.append(job)
        if checksums is not None:
            entries.set_checksums(dict(zip(names, finish(checksums), strict=True)), [position for position, _ in outline.holes])
            job.ready()
    except BaseException:
        for begun in jobs:
            give_up(begun)
        raise
    return job


def _outline_of(value: Any) -> tuple[_Outline, dict[str, torch.UntypedStorage]]:
    """The outline, and the storages by the names that they have in the archive, in its order."""
    outline = _Outline()
    found: dict[str, Any] = {}

    class Pickler(pickle.Pickler):
        # torch.save makes a class of this one, whose persistent_id() is asked for every object and gives storages their names.
        def __init_subclass__(cls) -> None:
            persistent_id = cls.persistent_id

            def noted(self: Any, value: Any) -> Any:
                if isinstance(value, torch.Tensor) and value.is_meta:
                    raise UnusualObjectError  # which skip_data warns of
                identity = persistent_id(self, value)
                if identity is not None:
                    found[identity[2]] = value
                return identity

            cls.persistent_id = noted  # type: ignore[method-assign]

    pickle_module = SimpleNamespace(__name__="pickle", Pickler=Pickler)
    try:
        with torch.serialization.skip_data():
            torch.save(value, cast(IO[bytes], outline), pickle_module=pickle_module)
        # Of a typed storage as PyTorch does it: untyped() warns that there are such.
        storages = {name: getattr(storage, "_untyped_storage", storage) for name, storage in found.items()}
    except Exception as error:
        # Some tensors (quantized ones) cannot be pickled without their data. What cannot be saved at all fails once more.
        raise UnusualObjectError from error
    finally:
        found.clear()  # classes die late, and would keep the tensors until then
    if any(type(storage) is not torch.UntypedStorage or storage.device.type == "meta" for storage in storages.values()):
        raise UnusualObjectError
    return outline, storages


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _laid_out(outline: _Outline, data: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[int]]:
    """What the file is made of, by turns of the outline and of data, and where each begins."""
    known = torch.frombuffer(outline.bytes, dtype=torch.uint8)
    cuts = [0, *(position for position, _ in outline.holes), len(outline.bytes)]
    buffers = [known[cuts[0] : cuts[1]]]
    for buffer, (begin, end) in zip(data, pairwise(cuts[1:]), strict=True):
        buffers += [buffer, known[begin:end]]
    offsets = [0]
    for buffer in buffers[:-1]:
        offsets.append(offsets[-1] + buffer.nbytes)
    return buffers, offsets


class _Directory:
    """The archive's directory, in an outline whose checksums are to be set."""

    def __init__(self, outline: bytearray) -> None:
        self._bytes = outline
        ends = len(outline) - _ENDS_BYTES
        signature, size = _LONG_END.unpack_from(outline, ends)
        self._begin = ends - size
        if signature != _LONG_END_SIGNATURE or self._begin < 0:
            raise UnusualObjectError
        self._entries = list(self._read())
        # The id is made of the other checksums. A PyTorch that makes it in another way does so here already.
        if self._id_text()[20:] != self._combined():
            raise UnusualObjectError

    def _read(self) -> Iterator[tuple[int, bytes, bool]]:
        """Where an entry is, its name without that of the archive, and whether a descriptor stands behind its bytes."""
        position = self._begin
        while position < len(self._bytes) - _ENDS_BYTES:
            signature, flags, _, *lengths = _ENTRY.unpack_from(self._bytes, position)
            if signature != _ENTRY_SIGNATURE:
                raise UnusualObjectError
            begin = position + _ENTRY.size
            name = bytes(self._bytes[begin : begin + lengths[0]]).partition(b"/")[2]
            yield position, name, bool(flags & _HAS_DESCRIPTOR)
            position = begin + sum(lengths)

    def _checksum(self, entry: int) -> bytes:
        return bytes(self._bytes[entry + _CHECKSUM_IN_ENTRY : entry + _CHECKSUM_IN_ENTRY + 4])

    def _id_place(self) -> int:
        """Where the id's text is, which its descriptor and then the directory follow."""
        position, name, _ = self._entries[-1]
        if name != _SERIALIZATION_ID:
            raise UnusualObjectError
        descriptor = self._bytes.rfind(_DESCRIPTOR + self._checksum(position), 0, self._begin)
        if descriptor < 40:
            raise UnusualObjectError
        return descriptor - 40

    def _id_text(self) -> bytes:
        place = self._id_place()
        return bytes(self._bytes[place : place + 40])

    def _combined(self) -> bytes:
        """What the id says of the checksums."""
        combined = 0
        for position, _, has_descriptor in self._entries[:-1]:
            if has_descriptor:
                (checksum,) = struct.unpack("<I", self._checksum(position))
                combined ^= checksum + 0x9E3779B9 + (combined << 6) + (combined >> 2)
                combined &= 0xFFFFFFFFFFFFFFFF
        return b"%020d" % combined

    def set_checksums(self, checksums: dict[str, int], descriptors: list[int]) -> None:
        """Of the storages with these names, whose descriptors are there."""
        entries = {name: position for position, name, _ in self._entries}
        for (name, checksum), descriptor in zip(checksums.items(), descriptors, strict=True):
            self._set(checksum, entries[b"data/" + name.encode()], descriptor)
        place = self._id_place()
        self._bytes[place + 20 : place + 40] = self._combined()
        text = torch.frombuffer(self._bytes, dtype=torch.uint8)[place : place + 40]
        (of_id,) = finish(ops.start_checksum([text]))
        self._set(of_id, self._entries[-1][0], place + 40)

    def _set(self, checksum: int, entry: int, descriptor: int) -> None:
        struct.pack_into("<I", self._bytes, entry + _CHECKSUM_IN_ENTRY, checksum)
        struct.pack_into("<I", self._bytes, descriptor + len(_DESCRIPTOR), checksum)
