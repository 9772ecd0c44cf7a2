"""Waiting for what the engine does in its own threads."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from veturboio._errors import python_errors

# Python handles signals between two waits: a Ctrl-C is answered after this many seconds at the latest.
_POLL_SECONDS = 0.1


def finish(job: Any, on_progress: Callable[[int, int], None] | None = None) -> Any:
    """Waits for a LoadJob or SaveJob and returns its result; an exception meanwhile (Ctrl-C, say) cancels it first.

    `on_progress` is called with the bytes done and in all, about ten times a second.
    """
    _wait(job, on_progress)
    with python_errors():
        return job.result()


def finish_load(job: Any) -> dict[str, Any]:
    """The same for a LoadJob into new tensors: its names and tensors."""
    _wait(job, None)
    with python_errors(), _without_collection():
        return dict(zip(*job.result_lists(), strict=True))


def _wait(job: Any, on_progress: Callable[[int, int], None] | None) -> None:
    try:
        while not job.wait(_POLL_SECONDS):
            if on_progress is not None:
                on_progress(*job.progress())
        if on_progress is not None:
            on_progress(*job.progress())
    except BaseException:
        job.cancel()
        job.wait(-1.0)
        raise


@contextmanager
def _without_collection() -> Iterator[None]:
    """Every so many new objects Python goes through all there are, looking for cycles. Tensors have none, and thousands of them
    would set it off again and again: of a first load's time it was two thirds."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def warn(texts: list[str], stacklevel: int) -> None:
    """Tells users what the storage could not do, or not at once. `stacklevel` as in warnings.warn, counted from the caller."""
    for text in texts:
        warnings.warn(text, stacklevel=stacklevel)
