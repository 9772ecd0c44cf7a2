"""A far file system over a folder of this machine: tests/fakes/slow_fs, mounted.

with SlowFs(folder, delay_ms=10, mb_per_s=100) as far:
    veturboio.load(far / "model.safetensors")
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fakes.build import make

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "fakes" / "slow_fs"
BUILD = ROOT / "build" / "fakes" / "slow_fs"


class NoMountError(Exception):
    """This machine lets nobody mount file systems of his own; the text says why."""


@functools.cache
def _build() -> None:
    make("the slow file system", SOURCES, OUT=BUILD)


@dataclass(frozen=True)
class Read:
    """A line of the log; its form is told in tests/fakes/slow_fs/log.h."""

    path: str
    handle: int
    offset: int
    size: int
    at_once: int


class SlowFs:
    """`settings` are those of tests/fakes/slow_fs/settings.h.

    Raises:
        NoMountError: Nothing can be mounted here.
    """

    def __init__(self, source: Path, **settings: float) -> None:
        self._source, self._settings = source, settings

    def __enter__(self) -> SlowFs:
        if not Path("/dev/fuse").exists():
            raise NoMountError("there is no /dev/fuse")
        _build()
        self._root = Path(tempfile.mkdtemp(prefix=f"slow-fs-{os.getpid()}-"))
        self._log = self._root / "log"
        self.path = self._root / "mount"
        self.path.mkdir()
        settings = [f"{name}={value}" for name, value in self._settings.items()]
        command = [str(BUILD / "slow_fs"), str(self._source), str(self.path), f"log={self._log}", *settings]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline() != "mounted\n":
            reason = self._process.stderr.read().strip()
            self._end()
            raise NoMountError(f"nothing can be mounted: {reason}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """As a server that does not answer: whoever asks waits."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def die(self) -> None:
        """As a server that is gone: whoever waits for it, and whoever asks later, gets an error."""
        self._process.kill()
        self._process.wait()

    def forget_cached(self, name: str) -> None:
        """Has the page cache drop a file."""
        descriptor = os.open(self / name, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

    def reads(self) -> list[Read]:
        """In the order in which they were answered."""
        words = [line.split(" ") for line in self._lines() if line.startswith("read ")]
        return [Read(path, int(handle), int(offset), int(size), int(now)) for _, path, handle, offset, size, now in words]

    def handles(self, kind: str) -> list[int]:
        """Those opened for "direct" or "cached" reads."""
        words = [line.split(" ") for line in self._lines() if line.startswith("open ")]
        return [int(handle) for _, _, handle, found in words if found == kind]

    def most_at_once(self) -> int:
        """Reads under way."""
        return max((read.at_once for read in self.reads()), default=0)

    def forget_requests(self) -> None:
        os.truncate(self._log, 0)

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def _end(self) -> None:
        self._process.terminate()
        self._process.communicate()
        # It has unmounted itself, unless it was killed, or somebody still has a file of it open.
        if os.path.ismount(self.path) or not os.access(self.path, os.F_OK):
            subprocess.run(["fusermount3", "-u", "-z", self.path], check=True, capture_output=True)
        shutil.rmtree(self._root)
