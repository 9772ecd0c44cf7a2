"""The limits that loads and saves are held against, measured in the same turns by limit.cpp and write_limit.cpp; before that,
which of their settings is the fastest here.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from measure import EXTRA_BYTES, Step, Timing, compiled, limit_program, output, progress
from page_cache import make_cold
from spare_memory import SpareMemory

_MIB = 1 << 20
_HERE = Path(__file__).resolve().parent
_TRIES = 2  # of each setting; the less counts


def read_steps(way: str, file: Path, before: Callable[[], None]) -> list[Step]:
    """How fast `file` can be had in memory."""
    threads, block = len(os.sched_getaffinity(0)), 4 * _MIB
    if way == "direct":
        threads, block = _fastest_direct_read(file)
    what = {"buffered": "pread into huge pages", "direct": "O_DIRECT", "mapped": "populated mapping", "plain": "one read"}[way]
    setting = "" if way == "plain" else f", {threads} x {block // _MIB} MiB"
    return [Step(f"limit: {what}{setting}", _read(file, threads, way, block), before)]


def write_steps(file: Path, nbytes: int, on_disk: bool) -> list[Step]:
    """How fast as many bytes can be had in a file: past the page cache on a disk, by one writer and by two in memory."""
    if on_disk:
        threads, block = _fastest_direct_write(file, nbytes)
        return [Step(f"limit: O_DIRECT, {threads} x {block // _MIB} MiB", _write(file, nbytes, threads, block, "direct"))]
    block = 4 * _MIB
    return [
        Step(f"limit: pwrite, {threads} x {block // _MIB} MiB", _write(file, nbytes, threads, block, "buffered"))
        for threads in (1, 2)
    ]


@functools.cache
def _fastest_direct_read(file: Path) -> tuple[int, int]:
    def seconds(threads: int, block: int, spare: SpareMemory) -> float:
        make_cold(file)
        return Timing.parse(output(_read(file, threads, "direct", block), "the limit failed", spare)).seconds["returned"]

    return _fastest("read", seconds, file.stat().st_size, threads=(1, 2, 4, 8), blocks=(1, 2, 4, 8, 16))


@functools.cache
def _fastest_direct_write(file: Path, nbytes: int) -> tuple[int, int]:
    def seconds(threads: int, block: int, spare: SpareMemory) -> float:
        return Timing.parse(output(_write(file, nbytes, threads, block, "direct"), "the limit failed", spare)).seconds["durable"]

    return _fastest("written", seconds, nbytes, threads=(1, 2, 4, 8, 16), blocks=(4, 16))


def _fastest(
    what: str,
    seconds: Callable[[int, int, SpareMemory], float],
    nbytes: int,
    threads: tuple[int, ...],
    blocks: tuple[int, ...],
) -> tuple[int, int]:
    settings = {(count, size * _MIB): float("inf") for count in threads for size in blocks}
    spare = SpareMemory(nbytes + EXTRA_BYTES)
    try:
        for turn in range(_TRIES):
            for count, size in settings:
                progress(f"how fast it is {what} past the page cache: {count} threads, {size // _MIB} MiB, {turn + 1}/{_TRIES}")
                spare.take()
                settings[count, size] = min(settings[count, size], seconds(count, size, spare))
    finally:
        spare.give()
    progress("")
    best = min(settings, key=lambda setting: settings[setting])
    listed = ", ".join(f"{count} x {size // _MIB} MiB {took:.3f}" for (count, size), took in settings.items())
    print(f"Seconds until {what} by O_DIRECT: {listed}", file=sys.stderr)
    return best


def _read(file: Path, threads: int, way: str, block: int) -> list[str]:
    return [str(limit_program()), str(file), str(threads), way, str(block)]


def _write(file: Path, nbytes: int, threads: int, block: int, way: str) -> list[str]:
    program = compiled(_HERE / "write_limit.cpp", "-O2", depends=[_HERE / "spare_memory.h"])
    return [str(program), str(file), str(nbytes), str(threads), str(block), way]
