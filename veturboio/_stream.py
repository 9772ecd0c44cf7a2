"""Tensors as they come, while the rest is still being read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from veturboio._arguments import FilePath, MapLocation, byte_count, target_device, thread_count
from veturboio._cipher import Bytes
from veturboio._errors import python_errors
from veturboio._io_helper import IOHelper, helper_of_several
from veturboio._jobs import finish_load, give_up, warn
from veturboio._library import ops
from veturboio._memory import Memory
from veturboio._models import Models, Names, Selection, open_safetensors
from veturboio._shared_tensors import aliases

# Tensors are read in windows: so many bytes that the storage gives all it can, and starting to read them counts for nothing.
_MIN_WINDOW_BYTES = 32 << 20
# At any time two windows are read, so that the second is under way when the first ends, and one is handed out.
_WINDOWS = 3
_WINDOWS_READ = 2


def stream(
    file: FilePath | Memory,
    map_location: MapLocation = "cpu",
    num_thread: int | None = None,
    helper: IOHelper | None = None,
    use_pinmem: bool = False,
    use_direct_io: bool | None = None,
    use_cipher: bool | None = None,
    *,
    names: Names | None = None,
    max_host_bytes: int | None = None,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Iterates over the names and tensors of a safetensors model, in the order of the data, while the rest is still being read.

        >>> for name, tensor in veturboio.stream("model.safetensors", "cuda"):
        ...     model.get_parameter(name).data.copy_(tensor)

    No more is read ahead than keeps the storage busy, so a consumer that is slow, or keeps nothing, needs little memory. Leaving
    the loop stops the reading.

    Args:
        max_host_bytes: What is read ahead or has just been handed out takes no more of the host's memory than this, nor on
            another device of its own.
        The others are those of load().

    Raises:
        MemoryError: A tensor is larger than max_host_bytes.
        FileFormatError: The file is damaged, or one of torch.save.
        And what load() raises, of the header at once and of the rest in the loop.
    """
    device = target_device(map_location)
    limit = byte_count(max_host_bytes)
    transfer = {"num_threads": thread_count(num_thread), "helper": helper_of_several(helper, use_pinmem)}
    models = open_safetensors(file, use_direct_io, use_cipher, key, iv)
    selection = models.select(names)
    window_bytes = max(_MIN_WINDOW_BYTES, *(model.window_bytes() for model in models.native))
    if limit is not None:
        window_bytes = min(window_bytes, limit // _WINDOWS)
        transfer["max_host_bytes"] = limit
    windows = _windows(models, selection, window_bytes)
    largest = max((window.size for window in windows), default=0)
    if limit is not None and largest > limit:
        raise MemoryError(f"{models.title}: a tensor has {largest} bytes, and max_host_bytes is {limit}")
    budget = _WINDOWS * window_bytes if limit is None else limit
    return _read(windows, models, selection, device, transfer, budget)


@dataclass
class _Window:
    """Tensors that are read together: of each file their names."""

    names: list[list[str]]
    size: int = 0
    job: Any = field(default=None, repr=False)


def _windows(models: Models, selection: Selection, window_bytes: int) -> list[_Window]:
    windows: list[_Window] = []
    for index, model in enumerate(models.native):
        wanted = None if selection.of_each is None else set(selection.of_each[index])
        with python_errors():
            sizes = zip(model.list_tensors()[0], model.tensor_sizes(), strict=True)
        for name, size in sizes:
            if wanted is not None and name not in wanted:
                continue
            if not windows or (windows[-1].size > 0 and windows[-1].size + size > window_bytes):
                windows.append(_Window([[] for _ in models.native]))
            windows[-1].names[index].append(name)
            windows[-1].size += size
    return windows


def _read(
    windows: list[_Window],
    models: Models,
    selection: Selection,
    device: torch.device,
    transfer: dict[str, Any],
    budget: int,
) -> Iterator[tuple[str, torch.Tensor]]:
    kept_as = _kept_as(models, selection)
    waiting = deque(windows)
    reading: deque[_Window] = deque()

    def read_ahead(handed_out: int) -> None:
        while waiting and len(reading) < _WINDOWS_READ:
            taken = handed_out + sum(window.size for window in reading)
            if taken > 0 and taken + waiting[0].size > budget:
                break
            window = waiting.popleft()
            with python_errors():
                window.job = ops.start_load_models(models.native, device, names=window.names, **transfer)
            reading.append(window)

    try:
        read_ahead(0)
        while reading:
            window = reading[0]
            tensors = finish_load(window.job)
            warn(window.job.warnings(), stacklevel=2)
            reading.popleft()
            window.job = None  # it holds the tensors
            read_ahead(window.size)
            for name in list(tensors):
                tensor = tensors.pop(name)
                for alias in kept_as.get(name, (name,)):
                    yield alias, tensor
                del tensor
            read_ahead(0)
    finally:
        give_up(*(window.job for window in reading))


def _kept_as(models: Models, selection: Selection) -> dict[str, list[str]]:
    """The names to hand out of tensors that are not handed out under their own name alone."""
    metadata = models.metadata() or {}
    everything = {name for of_file in models.names_of_each() for name in of_file}
    names: dict[str, list[str]] = {}
    for dropped, kept in aliases(metadata, everything).items():
        names.setdefault(kept, [kept]).append(dropped)
    if selection.wanted is None:
        return names
    return {kept: [name for name in all_names if name in selection.wanted] for kept, all_names in names.items()}
