"""Failures of the system, played by a library that is preloaded (tests/fakes/faulty_libc).

A process that was started with preloading(...) as its environment makes them happen:

    with faults(Fault("pread", Effect.FAIL, errno.EIO, first=3), folder) as hits:
        veturboio.load(folder / "model.safetensors")
    print(hits)
"""

from __future__ import annotations

import ctypes
import enum
import errno
import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.build import make

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "fakes" / "faulty_libc"
BUILD = ROOT / "build" / "fakes" / "faulty_libc"
LIBRARY = BUILD / "libfaulty.so"

#: `times` of a fault that does not pass.
FOR_EVER = -1
#: `value` of Effect.SHORT that halves each transfer.
HALF = -1


class Effect(enum.IntEnum):
    """As in tests/fakes/faulty_libc/scenario.h."""

    FAIL = 0
    SHORT = 1
    SLOW = 2
    KILL = 3


@dataclass(frozen=True)
class Hit:
    """A call that something was done to. Its offset is -1 where it has none."""

    offset: int
    path: str


@dataclass(frozen=True)
class Fault:
    """What is to happen.

    Attributes:
        call: Which call: a function of libc, without the endings 64 and at. "open-direct" is open() with O_DIRECT, and
            "mmap-anonymous" a large mapping of no file; "open" and "mmap" are the others. "new" is memory of a kilobyte or more
            that C++ asks for on the first thread, "new-in-thread" any that it asks for on others; their paths are those of the
            library that asks. "pthread_create" has none.
        effect, value: What becomes of it: it fails with the errno `value`, moves only so many bytes, is made so many
            milliseconds later, or the process is killed.
        first, times, probability: Calls are hit from the how manieth on, how many of them, and how probably each.
    """

    call: str
    effect: Effect
    value: int = 0
    first: int = 1
    times: int = FOR_EVER
    probability: float = 1.0

    def __str__(self) -> str:
        what = {
            Effect.FAIL: errno.errorcode.get(self.value, str(self.value)),
            Effect.SHORT: "half" if self.value == HALF else f"{self.value} bytes",
            Effect.SLOW: f"{self.value} ms late",
            Effect.KILL: "killed",
        }[self.effect]
        return f"{self.call} {what}"


def preloading(environment: Mapping[str, str]) -> dict[str, str]:
    """That environment with the library in it."""
    _build()
    others = environment.get("LD_PRELOAD", "").split()  # a sanitizer's, which wants to be the first
    return {**environment, "LD_PRELOAD": " ".join([*others, str(LIBRARY)])}


def is_preloaded() -> bool:
    return str(LIBRARY) in os.environ.get("LD_PRELOAD", "").split()


@contextmanager
def faults(fault: Fault, path: Path | str, seed: int = 0) -> Iterator[list[Hit]]:
    """Has it happen to calls on paths that contain `path` ("": all). What was hit is in the list afterwards."""
    library = _library()
    library.faults_arm(
        fault.call.encode(),
        os.fsencode(path),
        int(fault.effect),
        fault.value,
        fault.first,
        fault.times,
        fault.probability,
        seed,
    )
    hits: list[Hit] = []
    try:
        yield hits
    finally:
        library.faults_disarm()
        for line in os.fsdecode(library.faults_hits()).splitlines():
            offset, _, hit_path = line.partition(" ")
            hits.append(Hit(int(offset), hit_path))


def calls_seen() -> int:
    """How many calls the last fault was about, hit or not."""
    seen: int = _library().faults_seen()
    return seen


@functools.cache
def _build() -> None:
    make("the faulty libc", SOURCES, OUT=BUILD)


@functools.cache
def _library() -> ctypes.CDLL:
    assert is_preloaded(), "this process was not started with the faulty libc"
    library = ctypes.CDLL(str(LIBRARY))
    library.faults_arm.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_double,
        ctypes.c_uint64,
    ]
    library.faults_seen.restype = ctypes.c_long
    library.faults_hits.restype = ctypes.c_char_p
    return library
