"""Loads that go on while the program does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

import torch

from veturboio._arguments import FilePath, MapLocation, byte_count, target_device, thread_count
from veturboio._cipher import Bytes
from veturboio._errors import python_errors
from veturboio._io_helper import IOHelper, native_helper
from veturboio._jobs import give_up, tensors_of, wait, warn
from veturboio._library import ops
from veturboio._memory import Memory
from veturboio._models import Names, Selection, open_safetensors

# An event loop looks after a job so often.
_POLL_SECONDS = 0.005


class LoadProgress(NamedTuple):
    """How far a load has come.

    Attributes:
        bytes_done, bytes_total: Of what is read; what is mapped is not.
        bytes_per_second: Since the load began.
    """

    bytes_done: int
    bytes_total: int
    bytes_per_second: float


class LoadJob:
    """A load under way, from load_async(). Awaiting it gives what result() returns; an await that is cancelled cancels it.

    A job that nobody refers to any more is cancelled.
    """

    def __init__(self, native: Any, selection: Selection) -> None:
        self._native = native
        self._selection = selection
        self._began = time.monotonic()
        self._seconds: float | None = None  # once it has ended
        self._cancelled = False
        self._result: dict[str, torch.Tensor] | None = None

    def done(self) -> bool:
        """Whether it has ended, well or badly."""
        ended: bool = self._native.wait(0.0)
        if ended and self._seconds is None:
            self._seconds = time.monotonic() - self._began
        return ended

    def progress(self) -> LoadProgress:
        """How far it has come."""
        self.done()
        done, total = self._native.progress()
        seconds = time.monotonic() - self._began if self._seconds is None else self._seconds
        return LoadProgress(done, total, done / max(seconds, 1e-9))

    def cancel(self) -> bool:
        """Stops it, soon. False when it has ended already."""
        if self.done():
            return False
        self._cancelled = True
        self._native.cancel()
        return True

    def result(self, timeout: float | None = None) -> dict[str, torch.Tensor]:
        """What load() returns, when it is there; each time the same dict.

        Raises:
            TimeoutError: It is not there after `timeout` seconds. The load goes on.
            concurrent.futures.CancelledError: It was cancelled.
            And what load() raises.
        """
        if timeout is None:
            wait(self._native)
        elif not self._native.wait(max(0.0, float(timeout))):
            done, total, rate = self.progress()
            raise TimeoutError(f"not done after {timeout:g} s: {done} of {total} bytes, {rate / 1e6:.1f} MB/s")
        if self._result is None:
            try:
                tensors = tensors_of(self._native)
            except Exception as error:
                if self._cancelled:
                    raise CancelledError from error
                raise
            warn(self._native.warnings(), stacklevel=3)
            self._result = self._selection.complete(tensors, self._native.metadata())
        return self._result

    def __await__(self) -> Generator[Any, None, dict[str, torch.Tensor]]:
        return self._wait().__await__()

    async def _wait(self) -> dict[str, torch.Tensor]:
        try:
            while not self.done():
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            self.cancel()
            raise
        return self.result()

    def __del__(self) -> None:
        give_up(self._native)

    def __repr__(self) -> str:
        done, total, _ = self.progress()
        return f"LoadJob({done} of {total} bytes{', done' if self.done() else ''})"


def load_async(
    file: FilePath | Memory,
    map_location: MapLocation = "cpu",
    num_thread: int | None = None,
    helper: IOHelper | None = None,
    use_pinmem: bool = False,
    use_direct_io: bool | None = None,
    use_cipher: bool | None = None,
    *,
    mmap: bool = False,
    names: Names | None = None,
    max_host_bytes: int | None = None,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> LoadJob:
    """Begins to load a safetensors model and returns once its header has been read and memory allocated.

        >>> job = veturboio.load_async("model.safetensors", "cuda")
        >>> model = build_model()
        >>> model.load_state_dict(job.result())  # or: await job

    The arguments are those of load(). FileFormatError for a file of torch.save; otherwise what load() raises, of the header here
    and of the rest in result().
    """
    device = target_device(map_location)
    num_threads = thread_count(num_thread)
    native = native_helper(helper) if use_pinmem else None
    models = open_safetensors(file, use_direct_io, use_cipher, key, iv)
    selection = models.select(names)
    with python_errors():
        job = ops.start_load_models(
            models.native,
            device,
            num_threads=num_threads,
            mmap=mmap,
            names=selection.of_each,
            helper=native,
            max_host_bytes=byte_count(max_host_bytes),
        )
    return LoadJob(job, selection)
