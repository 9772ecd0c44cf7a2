"""Warm memory for the processes that are measured.

A virtual machine gives memory that is free back to its host within seconds. Touched again, it takes up to 2 s a gigabyte to come,
and may be half as fast to use for a while. So what measures holds as much as the next process will need, and lets go of it when
that process asks, right before its clock starts; what the process has used it takes again as soon as that has ended. What was
free besides has gone to the host by the time that it lets go, so that nothing is on its way there while a clock runs.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "VETURBOIO_BENCH_SPARE_MEMORY"  # the descriptors that ask and are answered; spare_memory.h reads it, too
_SETTLING_SECONDS = 2.5  # Linux reports free pages to the host after 2 s
_STOP = b"."


class SpareMemory:
    """Memory of so many bytes, in huge pages, as long as no process has asked for it. Nothing at all for 0 bytes."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._memory: mmap.mmap | None = None
        self._taken = 0.0

    def take(self) -> None:
        """Has the memory here, where it is not."""
        if self._memory is None and self._nbytes:
            self._memory = touched(self._nbytes)
            self._taken = time.monotonic()

    def give(self) -> None:
        """Frees it."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    @contextmanager
    def offered(self) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
        """Meanwhile a child process can ask for the memory: the environment and the descriptors that it needs."""
        asked, ask = os.pipe()
        answer, answered = os.pipe()
        server = threading.Thread(target=self._serve, args=(asked, answered))
        server.start()
        try:
            yield {_VARIABLE: f"{ask},{answer}"}, (ask, answer)
        finally:
            os.write(ask, _STOP)  # to close it would not do: the child may have left children that have it, too
            server.join()
            for descriptor in (asked, ask, answer, answered):
                os.close(descriptor)

    def _serve(self, asked: int, answered: int) -> None:
        while os.read(asked, 1) != _STOP:
            if self._memory is not None:
                time.sleep(max(0.0, self._taken + _SETTLING_SECONDS - time.monotonic()))
                self.give()
            os.write(answered, b"!")


def ask_for_spare_memory() -> None:
    """In a process that is measured: returns when the memory that was held for it is free."""
    if descriptors := os.environ.get(_VARIABLE):
        ask, answer = map(int, descriptors.split(","))
        os.write(ask, b"?")
        os.read(answer, 1)


def touched(nbytes: int) -> mmap.mmap:
    """Fresh memory, of huge pages where the kernel has them, all of which has been written to."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    memory[:: mmap.PAGESIZE] = bytes(len(range(0, nbytes, mmap.PAGESIZE)))
    return memory
