"""Building what stands in for parts of the system that are compiled."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build"


@contextmanager
def building() -> Iterator[None]:
    """One process of the tests builds, and others wait: what they would build is there then."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(what: str, sources: Path, *targets: str, **settings: object) -> None:
    """Runs the Makefile in `sources`. `what` it builds is named where it does not."""
    command = [
        "make",
        "-j2",
        "--no-print-directory",
        "-C",
        str(sources),
        *targets,
        *(f"{name}={value}" for name, value in settings.items()),
    ]
    with building():
        made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        raise RuntimeError(f"{what} does not build:\n{made.stdout}{made.stderr}")
