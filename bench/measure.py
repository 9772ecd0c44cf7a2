"""Measures loaders side by side.

Every measurement is a process of its own, and the loaders take turns (A B C A B C ...), so that none profits from what another
left in memory and slow spells of the machine fall on all of them. What is reported are medians.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_BUILD = _HERE.parent / "build" / "bench"

LOAD_MODES = ("veturboio", "one_reader", "torch", "safetensors", "limit")
OWN_MODES = ("veturboio", "one_reader")  # which read from every storage


class BenchError(Exception):
    """A measurement that could not be made, or whose result is wrong. Its text is for the user."""


@dataclass(frozen=True)
class Load:
    """One load of one file, whose tensors have `nbytes`. `mode` is one of LOAD_MODES; the other fields are veturboio.load's
    arguments."""

    mode: str
    file: str
    nbytes: int
    map_location: str = "cpu"
    num_thread: int | None = None
    use_pinmem: bool = False
    use_direct_io: bool | None = None


@dataclass(frozen=True)
class Timing:
    """What one process measured, in seconds from the same start: until the tensors were returned, and until all their bytes had
    been read by all cores. `checksum` is over those bytes (see one_load.py)."""

    returned: float
    touched: float
    checksum: int


@dataclass(frozen=True)
class Result:
    """All measurements of one loader."""

    timings: list[Timing]

    @property
    def returned(self) -> float:
        """Median of the seconds until the tensors were returned."""
        return statistics.median(timing.returned for timing in self.timings)

    @property
    def touched(self) -> float:
        """Median of the seconds until every byte had been read."""
        return statistics.median(timing.touched for timing in self.timings)


def data_file(stem: str, mode: str) -> str:
    """The file that a mode loads, of those that hold the same model: stem.safetensors or stem.pt."""
    return stem + (".pt" if mode == "torch" else ".safetensors")


def compare(loads: Sequence[Load], repeat: int) -> dict[str, Result]:
    """Measures each load `repeat` times, taking turns; checks that all of them gave the same bytes, every time.

    Raises:
        BenchError: A load failed, or its bytes are not those that the others gave.
    """
    timings: dict[str, list[Timing]] = {load.mode: [] for load in loads}
    for turn in range(repeat):
        for load in loads:
            _progress(f"{load.mode} {turn + 1}/{repeat}")
            timings[load.mode].append(_measure(load))
    _progress("")
    _check_equal(timings)
    return {mode: Result(of_mode) for mode, of_mode in timings.items()}


def exit_on_signals() -> None:
    """Has the signals that end a program raise SystemExit, so that data files are removed on the way out."""
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda number, _: sys.exit(128 + number))


def format_row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def touch_fresh_memory(nbytes: int) -> None:
    """Writes to as much fresh memory as a load of so many bytes will take, in huge pages, and gives it back.

    A virtual machine gets its memory from the host when it first touches it, which takes up to ten times as long as the load,
    and gives it back within seconds after it is freed. So every process does this itself, right before its clock starts: done
    in another process before, it favours whoever starts up fastest. limit.cpp does the same.
    """
    size = nbytes + (512 << 20)
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        memory[:: mmap.PAGESIZE] = bytes(len(range(0, size, mmap.PAGESIZE)))


def _measure(load: Load) -> Timing:
    if load.mode == "limit":
        command = [str(_limit_program()), load.file, str(load.num_thread or len(os.sched_getaffinity(0)))]
    else:
        command = [sys.executable, str(_HERE / "one_load.py"), json.dumps(asdict(load))]
    return Timing(**json.loads(output(command, f"{load.mode}: loading {load.file} failed")))


def output(command: list[str], failure: str) -> str:
    """What a command prints; a BenchError that begins with `failure` when it fails."""
    # In a session of its own, Ctrl-C does not reach the child: run() kills it, and no second traceback is printed.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, start_new_session=True)
    if done.returncode != 0:
        raise BenchError(f"{failure} (exit code {done.returncode})")
    return done.stdout


def _limit_program() -> Path:
    return compiled(_HERE / "limit.cpp", "-O2")


def compiled(source: Path, *arguments: str, depends: Sequence[Path] = ()) -> Path:
    """The program of a C++ source of the bench; compiles it when it is older than its source, or than what it depends on.

    Raises:
        BenchError: It does not compile.
    """
    program = _BUILD / source.stem
    newest = max(path.stat().st_mtime for path in (source, *depends))
    if not program.exists() or program.stat().st_mtime < newest:
        program.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX", "g++")
        command = [compiler, "-std=c++20", "-pthread", "-Wall", "-Wextra", str(source), *arguments, "-o", str(program)]
        output(command, f"{compiler} does not compile {source}")
    return program


def _check_equal(timings: Mapping[str, Sequence[Timing]]) -> None:
    found = {mode: {timing.checksum for timing in of_mode} for mode, of_mode in timings.items()}
    if len(set().union(*found.values())) > 1:
        listed = "; ".join(f"{mode}: {', '.join(f'{sum:016x}' for sum in sorted(sums))}" for mode, sums in found.items())
        raise BenchError(f"the loaders did not give the same bytes. Checksums: {listed}")


def _progress(text: str) -> None:
    """Says on a terminal what is being measured, in a line that the next output replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
