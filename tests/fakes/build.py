"""Building what stands in for parts of the system that are compiled."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make(what: str, sources: Path, **settings: object) -> None:
    """Runs the Makefile in `sources`. `what` it builds is named where it does not."""
    command = [
        "make",
        "-j2",
        "--no-print-directory",
        "-C",
        str(sources),
        *(f"{name}={value}" for name, value in settings.items()),
    ]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        raise RuntimeError(f"{what} does not build:\n{made.stdout}{made.stderr}")
