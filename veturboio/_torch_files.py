"""Files of torch.save: their structure is read by PyTorch itself, the tensors' bytes by the engine."""

from __future__ import annotations

import io
import mmap
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from veturboio._arguments import FilePath, local_path, operator_path
from veturboio._errors import FileFormatError, python_errors, torch_file_errors
from veturboio._file_objects import ReadableFileObject
from veturboio._files import is_local
from veturboio._jobs import Watch, finish, warn
from veturboio._library import ops
from veturboio._torch_archive import UnusualArchiveError, load_archive


def load_torch_file(
    file: FilePath,
    device: torch.device,
    options: dict[str, Any],
    *,
    enable_fast_mode: bool,
    mmap: bool,
    weights_only: bool,
    watch: Watch | None = None,
) -> Any:
    """What torch.load makes of a file, wherever it is and however it is encrypted.

    `options` are those of a load, for the operators; `watch` is told of what the engine reads.

    Raises:
        FileFormatError: The file is damaged.
        ValueError: It is to be mapped, and cannot be.
        OSError: It cannot be read.
        And what torch.load raises of a good file.
    """
    with torch_file_errors(local_path(file)):
        if enable_fast_mode and weights_only and not mmap and device.type != "meta":
            try:
                return load_archive(file, device, options, watch)
            except UnusualArchiveError:
                pass
        return _load_by_torch(file, device, options, mmap=mmap, weights_only=weights_only)


def _load_by_torch(file: FilePath, device: torch.device, options: dict[str, Any], *, mmap: bool, weights_only: bool) -> Any:
    path = local_path(file)
    cipher = options["cipher"]
    if not is_local(file):
        if mmap:
            raise ValueError(f"{path}: this kind of storage cannot be mapped into memory: load it without mmap")
        # As a whole first, by many readers: PyTorch asks for a little at a time, and each answer takes milliseconds.
        with _in_memory(file, options) as copy:
            return torch.load(copy, map_location=device, mmap=zipfile.is_zipfile(copy), weights_only=weights_only)
    if cipher is not None:
        with python_errors():
            reader = torch.classes.veturbo.FileReader(operator_path(file), cipher)
        # Buffered, since unpickling reads a few bytes at a time; what is larger than the buffer goes past it.
        decrypted = io.BufferedReader(ReadableFileObject(reader), buffer_size=1 << 16)
        return torch.load(decrypted, map_location=device, mmap=False, weights_only=weights_only)
    if not path.endswith(".safetensors"):
        return torch.load(path, map_location=device, mmap=mmap or None, weights_only=weights_only)
    # torch.load takes a path with this ending for what it says, whatever is in the file.
    with Path(path).open("rb") as source:
        return torch.load(source, map_location=device, mmap=False, weights_only=weights_only)


@contextmanager
def _in_memory(file: FilePath, options: dict[str, Any]) -> Iterator[str]:
    """The path of a copy in memory, which lives as long as anybody has it open or mapped."""
    path = operator_path(file)
    with python_errors():
        size = ops.file_size(path, options["cipher"])
    if size == 0:
        raise FileFormatError(f"{local_path(file)}: the file is empty", local_path(file), offset=0)
    descriptor = os.memfd_create("veturboio")
    try:
        os.ftruncate(descriptor, size)
        # The memory is unmapped when nothing holds it any longer: with a load that fails, threads that nobody waits for may.
        buffer = torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)
        with python_errors():
            job = ops.start_read_([buffer], [0], path, **options)
        finish(job)
        warn(job.warnings(), stacklevel=6)
        del buffer, job
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
