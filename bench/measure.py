"""Measures loaders, and what else is compared, side by side.

Every measurement is a process of its own, and the loaders take turns (A B C A B C ...), so that none profits from what another
left in memory and slow spells of the machine fall on all of them. What is reported are medians.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loaders import LIMIT, LOADERS, Load
from peer_environment import python
from spare_memory import SpareMemory, ask_for_spare_memory, touched

_HERE = Path(__file__).resolve().parent
_CORE = _HERE.parent / "csrc" / "core"
_BUILD = _HERE.parent / "build" / "bench"
EXTRA_BYTES = 512 << 20  # that are touched before a clock starts, beside what is loaded or saved


class BenchError(Exception):
    """A measurement that could not be made, or whose result is wrong. Its text is for the user."""


@dataclass(frozen=True)
class Timing:
    """What one process measured: seconds from the same start by what they end with ("returned", and "touched" when all bytes of
    the tensors had been read, or "durable" when they were on the disk), the checksum over the tensors (touching.py), and the
    memory that it took (memory_use.py), where that is known.
    """

    seconds: dict[str, float]
    checksum: int | None
    memory: dict[str, int] | None

    @classmethod
    def parse(cls, output: str) -> Timing:
        """From what the process printed: a JSON object in the last line."""
        fields = json.loads(output.splitlines()[-1])
        checksum, memory = fields.pop("checksum", None), fields.pop("memory", None)
        return cls(fields, checksum, memory)


@dataclass(frozen=True)
class Result:
    """All measurements of one loader or saver."""

    timings: list[Timing]

    def median(self, what: str) -> float:
        return statistics.median(timing.seconds[what] for timing in self.timings)

    @property
    def returned(self) -> float:
        """Median of the seconds until the tensors were returned."""
        return self.median("returned")

    @property
    def touched(self) -> float:
        """Median of the seconds until every byte had been read."""
        return self.median("touched")


@dataclass(frozen=True)
class Step:
    """One way to do what is compared: a command that prints a Timing, what puts the machine into the state to begin with, and
    what removes what is left.
    """

    name: str
    command: list[str]
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None


def compare(loads: Sequence[Load], repeat: int) -> dict[str, Result]:
    """Measures each load `repeat` times, taking turns; checks that all of them gave the same bytes, every time.

    Raises:
        BenchError: A load failed, or its bytes are not those that the others gave.
    """
    spare = max((load.nbytes for load in loads), default=0) + EXTRA_BYTES
    return take_turns([Step(load.mode, load_command(load)) for load in loads], repeat, SpareMemory(spare))


def take_turns(steps: Sequence[Step], repeat: int, spare: SpareMemory, failed: dict[str, str] | None = None) -> dict[str, Result]:
    """Measures each step `repeat` times: A B C A B C ... `spare` is held for each of them until it asks. A step that fails is put
    into `failed`, with the reason, and is left out of the result. Without `failed`, it is an error.

    Raises:
        BenchError: A step failed, or its tensors are not those of the others.
    """
    timings: dict[str, list[Timing]] = {step.name: [] for step in steps}
    try:
        for turn in range(repeat):
            for step in steps:
                if step.name not in timings:
                    continue
                progress(f"{step.name} {turn + 1}/{repeat}")
                step.before()
                spare.take()
                try:
                    timings[step.name].append(Timing.parse(output(step.command, f"{step.name} failed", spare)))
                except BenchError as error:
                    if failed is None:
                        raise
                    failed[step.name] = str(error)
                    del timings[step.name]
                finally:
                    step.after()
                spare.take()
    finally:
        spare.give()
    progress("")
    _check_equal(timings)
    return {name: Result(of_step) for name, of_step in timings.items()}


def exit_status(program: str, body: Callable[[], int | None], *expected: type[Exception]) -> int:
    """Runs what a program of the bench does and returns its exit status. What it fails with goes to stderr as a sentence."""
    exit_on_signals()
    failures: tuple[type[Exception], ...] = (BenchError, OSError, *expected)
    try:
        return body() or 0
    except failures as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130


def exit_on_signals() -> None:
    """Has the signals that end a program raise SystemExit, so that data files are removed on the way out."""
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda number, _: sys.exit(128 + number))


def format_row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def touch_fresh_memory(nbytes: int) -> None:
    """Writes to as much fresh memory as a load of so many bytes will take, and 512 MiB more for buffers, in huge pages, and gives
    it back: whatever of it was not held for this process (spare_memory.py) now comes from the host. Every process does this
    itself, right before its clock starts, as limit.cpp does: memory that is free does not stay long.
    """
    ask_for_spare_memory()
    touched(nbytes + EXTRA_BYTES).close()


def touch_fresh_file_memory(nbytes: int) -> None:
    """The same for a save of so many bytes into shared memory or the page cache, which takes small pages: those that huge pages
    leave behind are not the first that the kernel then hands out. write_limit.cpp does the same.
    """
    block = bytes(8 << 20)
    with os.fdopen(os.memfd_create("touched"), "wb", buffering=0) as file:  # /dev/shm may have no room
        for _ in range(0, nbytes + EXTRA_BYTES, len(block)):
            file.write(block)


def load_command(load: Load) -> list[str]:
    if load.mode == LIMIT:
        return [str(limit_program()), load.file, str(load.num_thread or len(os.sched_getaffinity(0)))]
    return [python(LOADERS[load.mode].environment), str(_HERE / "one_load.py"), json.dumps(asdict(load))]


def output(command: list[str], failure: str, spare: SpareMemory | None = None) -> str:
    """What a command prints; a BenchError that begins with `failure` when it fails, and has the last line of its complaint. It
    can ask for the spare memory.
    """
    # A peer's environment knows nothing of this tree. In a session of its own, Ctrl-C does not reach the child: run() kills it,
    # and no second traceback is printed.
    path = os.pathsep.join(filter(None, [str(_HERE.parent), os.environ.get("PYTHONPATH")]))
    with (spare or SpareMemory(0)).offered() as (variables, descriptors):
        environment = os.environ | {"PYTHONPATH": path} | variables
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the peers, being installed, have their bytecode; ours is this tree
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, start_new_session=True, env=environment, pass_fds=descriptors
        )
    if done.returncode != 0:
        complaint = done.stderr.strip().splitlines()
        raise BenchError(f"{failure} (exit code {done.returncode}){': ' + complaint[-1] if complaint else ''}")
    return done.stdout


def limit_program() -> Path:
    return compiled(_HERE / "limit.cpp", "-O3", depends=[_HERE / "page_sums.h", _HERE / "spare_memory.h"])


def compiled_with_core(source: Path, *folders: str) -> Path:
    """The program of a C++ source of the bench and these folders of csrc/core.

    Raises:
        BenchError: It does not compile.
    """
    sources = [path for folder in folders for path in (_CORE / folder).glob("*.cpp")]
    headers = [path for folder in folders for path in (_CORE / folder).glob("*.h")]
    return compiled(source, "-O3", f"-I{_CORE}", *map(str, sources), "-lcrypto", depends=[*sources, *headers])


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


def progress(text: str) -> None:
    """Says on a terminal what is being measured, in a line that the next output replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _check_equal(timings: Mapping[str, Sequence[Timing]]) -> None:
    found = {name: {timing.checksum for timing in of_step if timing.checksum is not None} for name, of_step in timings.items()}
    if len(set().union(*found.values())) > 1:
        listed = "; ".join(f"{name}: {', '.join(f'{sum:016x}' for sum in sorted(sums))}" for name, sums in found.items())
        raise BenchError(f"not all gave the same bytes. Checksums: {listed}")
