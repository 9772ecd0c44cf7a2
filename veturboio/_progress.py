"""Progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

#: What users pass as progress=: a bar, none, or a function that is given the bytes done and in all.
Progress: TypeAlias = "bool | Callable[[int, int], None]"
Report: TypeAlias = Callable[[int, int], None]


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
