"""What a load or a save must not leave in the process."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from multiprocessing import shared_memory
from pathlib import Path

from fault_operations import ViolationError

# Threads that have been told to end are waited for so long.
SETTLE_SECONDS = 5
# What begins the names of this process's shared memory, among that of others.
SHARED_PREFIX = f"/v{os.getpid():x}_"
shared_memory._SHM_NAME_PREFIX = SHARED_PREFIX  # type: ignore[attr-defined]


class Traces:
    """What of this process can be seen from outside, to be the same afterwards."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = self._count_threads()
        self._descriptors = self._list_descriptors()
        self._shared = self._list_shared()

    def check(self, *, descriptors: bool = True) -> None:
        gc.collect()
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._count_threads() > self._threads and time.monotonic() < deadline:
            time.sleep(0.005)
        if (threads := self._count_threads()) > self._threads:
            raise ViolationError(f"{threads - self._threads} threads are left")
        if descriptors and (found := self._list_descriptors()) != self._descriptors:
            raise ViolationError(f"descriptors are left: {set(found.items()) ^ set(self._descriptors.items())}")
        if self._list_shared() != self._shared:
            raise ViolationError(f"shared memory is left: {self._list_shared() - self._shared}")
        mappings = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(self._root) in line]
        if mappings:
            raise ViolationError(f"mappings are left: {mappings}")

    @staticmethod
    def _count_threads() -> int:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208  (a quarter of the time)

    @staticmethod
    def _list_descriptors() -> dict[str, str]:
        found = {}
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                found[name] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        return found

    @staticmethod
    def _list_shared() -> set[str]:
        return {path.name for path in Path("/dev/shm").glob(f"{SHARED_PREFIX[1:]}*")}
