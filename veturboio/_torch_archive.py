"""The zip archives that torch.save writes: PyTorch makes the objects, the engine reads the tensors' bytes.

PyTorch's own weights-only reader goes through the archive's pickle and asks `map_location`, a function of ours, for the memory
of every storage. It is shown the file as a mapping, of whose data it then touches nothing: where in the mapping it takes a
storage to be tells where in the file that storage's bytes are. Of a file that cannot be mapped, or not as it is, it is shown an
outline: a sparse file of the same size in memory which has all but the data.

This holds where the objects can be made without their data, so a pickle that names functions which may want it is not taken; and
where the archive has the data as it is in memory. All other files are PyTorch's to read.
"""

from __future__ import annotations

import io
import mmap
import os
import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from veturboio._arguments import FilePath, local_path, operator_path
from veturboio._errors import python_errors
from veturboio._file_objects import ReadableFileObject
from veturboio._files import is_local
from veturboio._jobs import Watch, finish, give_up, warn
from veturboio._library import ops

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of an entry: its signature, the lengths of the name and of the extra field
_LOCAL_SIGNATURE = b"PK\x03\x04"

# A function or class, in the protocol that torch.save uses: the opcode "c" and two lines.
_GLOBAL = re.compile(rb"([\w.]+)\n([\w.]+)\n")
_PROTOCOL_2 = b"\x80\x02"
_NEED_NO_DATA = (
    ("__builtin__", "bytearray"),
    ("__builtin__", "complex"),
    ("__builtin__", "set"),
    ("_codecs", "encode"),
    ("collections", "Counter"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch.storage", "UntypedStorage"),
)


class UnusualArchiveError(Exception):
    """The file is one for PyTorch alone to read. Users never see it."""


def load_archive(file: FilePath, device: torch.device, options: dict[str, Any], watch: Watch | None = None) -> Any:
    """What torch.load(weights_only=True) makes of an archive. `options` are those of a load, for the operators; `watch` is told
    of the load.

    Raises:
        UnusualArchiveError: The file is one for PyTorch alone to read.
        OSError: It cannot be read.
        And what torch.load raises of a good file.
    """
    with _outline(file, options) as outline:
        places = _find_storages(outline)
        offsets, sizes = list(places), list(places.values())
        with python_errors():
            buffers = ops.empty_buffers(offsets, sizes, device)
            job = ops.start_read_(buffers, offsets, operator_path(file), **options)
        storages = {offset: buffer.untyped_storage() for offset, buffer in zip(offsets, buffers, strict=True)}
        try:
            loaded = _unpickle(outline, storages, device)
        except BaseException:
            give_up(job)
            raise
        finish(job, watch)
        if _is_file_itself(file, options) and not os.path.samestat(os.fstat(outline.fileno()), Path(local_path(file)).stat()):
            raise UnusualArchiveError  # another file was given the name in between: once more, from the start
    warn(job.warnings(), stacklevel=5)
    return loaded


def _is_file_itself(file: FilePath, options: dict[str, Any]) -> bool:
    """Whether PyTorch can be shown the file as it is."""
    return options["cipher"] is None and is_local(file)


@contextmanager
def _outline(file: FilePath, options: dict[str, Any]) -> Iterator[IO[bytes]]:
    """A file with a descriptor that has all of the archive but, perhaps, its data."""
    if _is_file_itself(file, options):
        with Path(local_path(file)).open("rb") as source:
            yield source
        return
    path = operator_path(file)
    with python_errors():
        reader = torch.classes.veturbo.FileReader(path, options["cipher"])
    size = reader.size()
    directory = io.BufferedReader(ReadableFileObject(reader), buffer_size=1 << 16)
    with _opened_archive(directory) as archive:
        extents = [
            (begin, min(end - begin, _LOCAL_HEADER.size) if _is_data(entry) else end - begin)
            for entry, begin, end in _extents(archive)
        ]
        extents.append((archive.start_dir, size - archive.start_dir))
    with os.fdopen(os.memfd_create("veturboio"), "w+b") as outline:
        outline.truncate(size)
        # The memory is unmapped when nothing holds it any longer: with a load that fails, threads that nobody waits for may.
        bytes_of_outline = torch.frombuffer(mmap.mmap(outline.fileno(), size), dtype=torch.uint8)
        buffers = [bytes_of_outline[offset : offset + length] for offset, length in extents]
        with python_errors():
            job = ops.start_read_(buffers, [offset for offset, _ in extents], path, **options)
        finish(job)
        del bytes_of_outline, buffers, job
        yield outline


@contextmanager
def _opened_archive(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """What is damaged, or no archive at all, is left to torch.load, which says what is wrong with it."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError, struct.error):
        raise UnusualArchiveError from None


def _extents(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, int, int]]:
    """The entries, and from where to where in the file each may reach, in the order of the file."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    begins = [entry.header_offset for entry in entries]
    ends = [*begins[1:], archive.start_dir]
    if any(begin >= end for begin, end in zip(begins, ends, strict=False)):
        raise UnusualArchiveError
    yield from zip(entries, begins, ends, strict=False)


def _is_data(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.partition("/")[2].startswith("data/")


def _find_storages(outline: IO[bytes]) -> dict[int, int]:
    """Where the bytes of the storages are: {offset: size}, in the order of the file."""
    places = {}
    with _opened_archive(outline) as archive:
        names = archive.namelist()
        folder = names[0].partition("/")[0] if names else ""
        if f"{folder}/constants.pkl" in names:  # TorchScript
            raise UnusualArchiveError
        if archive.read(f"{folder}/byteorder").decode() != sys.byteorder or not _is_plain(archive.read(f"{folder}/data.pkl")):
            raise UnusualArchiveError
        for entry, begin, end in _extents(archive):
            if not _is_data(entry):
                continue
            header = os.pread(outline.fileno(), _LOCAL_HEADER.size, begin)
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            offset = begin + _LOCAL_HEADER.size + name_length + extra_length
            is_stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
            if signature != _LOCAL_SIGNATURE or not is_stored or offset + entry.file_size > end:
                raise UnusualArchiveError
            places[offset] = entry.file_size
    return places


def _is_plain(pickle: bytes) -> bool:
    """Whether its objects can be made before their data is there."""
    functions = set(_GLOBAL.findall(pickle))
    return pickle.startswith(_PROTOCOL_2) and all(_needs_no_data(*map(bytes.decode, names)) for names in functions)


def _needs_no_data(module: str, name: str) -> bool:
    # Whatever letters the opcode comes after have been taken for a part of the module's name.
    if module.endswith("ctorch") and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)):
        return True
    return any(module.endswith("c" + known) and name == function for known, function in _NEED_NO_DATA)


def _unpickle(outline: IO[bytes], storages: dict[int, torch.UntypedStorage], device: torch.device) -> Any:
    """Makes the objects over these storages, which are named by the offsets of their bytes in the file."""
    base: int | None = None

    def memory_of(mapped: Any, location: str) -> Any:
        nonlocal base
        if mapped.nbytes() == 0:
            return torch.UntypedStorage(0, device=device)
        if base is None:
            base = _address_of_mapping(mapped.data_ptr(), os.fstat(outline.fileno()).st_ino)
        storage = storages.get(mapped.data_ptr() - base)
        if storage is None or storage.nbytes() != mapped.nbytes():
            raise UnusualArchiveError
        return storage

    return torch.load(f"/proc/self/fd/{outline.fileno()}", map_location=memory_of, mmap=True, weights_only=True)


def _address_of_mapping(address: int, inode: int) -> int:
    """Where the first byte of the file would be that is mapped at `address` (proc(5), /proc/pid/maps)."""
    with Path("/proc/self/maps").open("rb") as maps:  # paths in it need not be text
        for line in maps:
            span, _, offset, _, of_inode, *_ = line.split(maxsplit=5)
            begin, end = (int(limit, 16) for limit in span.split(b"-"))
            if begin <= address < end and int(of_inode) == inode:
                return begin - int(offset, 16)
    raise UnusualArchiveError
