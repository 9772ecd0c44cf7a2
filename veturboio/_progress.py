"""Progress bars."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

#: What users pass as progress=: a bar, none, or a function that is given the bytes done and in all.
Progress: TypeAlias = "bool | Callable[[int, int], None]"
Report: TypeAlias = Callable[[int, int], None]

_REPORT_SECONDS = 0.1


@contextmanager
def reporting(title: str, progress: Progress) -> Iterator[Report | None]:
    """Gives a function to report (bytes done, in all) to, if any."""
    if callable(progress):
        yield progress
    elif not isinstance(progress, bool):
        raise TypeError(f"progress must be a bool or a function, not {type(progress).__name__}")
    elif progress:
        from tqdm.auto import tqdm  # looks whether this is a notebook, which takes a while

        with _bar(tqdm, title, disable=False) as report:
            yield report
    else:
        yield None


class PartsReport:
    """A report for jobs that follow each other, which makes of theirs one of the whole: as often as that of one job."""

    def __init__(self, report: Report | None, total: int = 0) -> None:
        self.total = total
        self._report = report
        self._before = self._size = 0
        self._told = -math.inf

    def begin(self, size: int) -> None:
        """The next job has so many bytes that count."""
        self._before += self._size
        self._size = size

    def __call__(self, done: int, _: int) -> None:
        done = min(self._before + min(done, self._size), self.total)
        now = time.monotonic()
        if self._report is not None and self.total > 0 and (done == self.total or now - self._told >= _REPORT_SECONDS):
            self._told = now
            self._report(done, self.total)


@contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """The bar of the commands: on a terminal, and nothing elsewhere."""
    from tqdm import tqdm

    with _bar(tqdm, title, disable=None) as report:
        yield report


@contextmanager
def _bar(kind: Any, title: str, disable: bool | None) -> Iterator[Report]:
    with kind(desc=title, unit="B", unit_scale=True, unit_divisor=1000, disable=disable, leave=False) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report
