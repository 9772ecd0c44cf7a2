"""Tensors that are read in the background and handed out one by one.

One thread of Python's has the engine read the plan in the order of the file, a batch at a time, with as many threads as the
loader was given. The tensors of a batch can be taken as soon as it is there.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch

from veturboio._reader import ModelReader
from veturboio.safetensors._arguments import Filename
from veturboio.safetensors._dtypes import TORCH_DTYPES
from veturboio.safetensors._errors import SafetensorError, reading

# Large enough for all threads to have work, small enough for the first tensor to be there soon, and for close() to wait little.
_BATCH_BYTES = 64 << 20


class PrefetchLoader:
    """The tensors that safe_open.prefetch() began to read. Each is handed out once, by take() or by iterating.

    What was handed out owns its memory. The rest is held until close(), or the end of the with block.
    """

    def __init__(self, reader: ModelReader, plan: Mapping[str, slice | None], filename: Filename) -> None:
        self._names = list(plan)
        self._is_closed = False
        self._batches: dict[str, Future[dict[str, torch.Tensor]]] = {}
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="veturboio-prefetch")
        for names in _batches(reader, plan):
            batch = pool.submit(_read, reader, {name: plan[name] for name in names}, filename)
            self._batches.update(dict.fromkeys(names, batch))
        # A loader that nobody has any more reads no further.
        weakref.finalize(self, pool.shutdown, wait=False, cancel_futures=True)
        self._pool = pool

    def names(self) -> list[str]:
        """The names of the tensors that it hands out, in the order of the file."""
        return list(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def take(self, name: str) -> torch.Tensor:
        """A tensor, or the slice of it that was planned, waiting until it is there.

        Raises:
            SafetensorError: It has been handed out, is not in the plan, or the loader is closed; the file is damaged.
            OSError: It could not be read.
        """
        tensor = self._claim(name)
        if tensor is None:
            raise SafetensorError("tensor already delivered (prefetch hands each tensor out once, via take or iteration)")
        return tensor

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors as they are there, without those that have been taken."""
        for name in self._names:
            tensor = self._claim(name)
            if tensor is not None:
                yield name, tensor

    def close(self) -> None:
        """Reads no further and lets go of what was not taken."""
        self._is_closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._batches.clear()

    def __enter__(self) -> PrefetchLoader:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _claim(self, name: str) -> torch.Tensor | None:
        """The tensor, or None for one that has been handed out."""
        batch = self._batches.get(name)
        if self._is_closed:
            raise SafetensorError("prefetch loader closed")
        if batch is None:
            raise SafetensorError(f"tensor {name} is not in the prefetch plan")
        try:
            return batch.result().pop(name, None)
        except CancelledError:
            raise SafetensorError("prefetch loader closed") from None


def checked_plan(reader: ModelReader, plan: Mapping[str, slice | None] | None) -> dict[str, slice | None]:
    """The plan in the order of the file."""
    if plan is None:
        whole: dict[str, slice | None] = dict.fromkeys(reader.keys())
        plan = whole
    elif not isinstance(plan, Mapping):
        raise TypeError(f"argument 'plan': {type(plan).__name__!r} object is not an instance of 'dict'")
    elif not plan:
        raise SafetensorError("prefetch plan selects no tensors")
    names = reader.keys()
    known = frozenset(names)
    for name, rows in plan.items():
        if not isinstance(name, str):
            raise SafetensorError("prefetch plan keys must be tensor names")
        if name not in known:
            raise SafetensorError(f"File does not contain tensor {name}")
        info = reader.info(name)
        if info.dtype not in TORCH_DTYPES:
            raise SafetensorError(f"prefetch cannot hand out dtype {info.dtype}: torch has no matching dtype")
        _check_rows(name, info.shape, rows)
    return {name: plan[name] for name in names if name in plan}


def _check_rows(name: str, shape: tuple[int, ...], rows: Any) -> None:
    if rows is None:
        return
    if not isinstance(rows, slice):
        raise SafetensorError(f"prefetch plan values must be None or a slice, got {type(rows)} for {name}")
    if not shape:
        raise SafetensorError(f"cannot slice rows of the 0-d tensor {name}")
    for what, bound in (("start", rows.start), ("stop", rows.stop)):
        if bound is None:
            continue
        try:
            row = operator.index(bound)
        except TypeError:
            raise SafetensorError(f"prefetch plan slice bounds for {name} must be integers or None") from None
        if not -shape[0] <= row <= shape[0]:
            raise SafetensorError(f"prefetch plan slice {what} {row} for {name} is out of range for {shape[0]} rows")
    if rows.step not in (None, 1):
        raise SafetensorError(f"prefetch plan slices must have step 1, got {rows.step} for {name}")


def _batches(reader: ModelReader, plan: Mapping[str, slice | None]) -> Iterator[list[str]]:
    batch: list[str] = []
    batch_bytes = 0
    for name, rows in plan.items():
        info = reader.info(name)
        num_bytes = info.num_bytes
        if rows is not None and num_bytes > 0:
            num_bytes = num_bytes // info.shape[0] * len(range(*rows.indices(info.shape[0])))
        if batch and batch_bytes + num_bytes > _BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(name)
        batch_bytes += num_bytes
    if batch:
        yield batch


def _read(reader: ModelReader, plan: Mapping[str, slice | None], filename: Filename) -> dict[str, torch.Tensor]:
    with reading(filename):
        tensors = reader.tensors([name for name, rows in plan.items() if rows is None])
        tensors.update({name: reader.slice(name)[rows] for name, rows in plan.items() if rows is not None})
    return tensors
