"""Waiting for what the engine does in its own threads."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from veturboio._errors import python_errors
from veturboio._exit import enter_library, is_ending, leave_library

# Python handles signals between two waits: a Ctrl-C is answered after this many seconds at the latest.
_POLL_SECONDS = 0.1
# How long workers that have been told to stop are waited for. They do after the call to the system that they are in.
_STOP_SECONDS = 0.1


class Watch:
    """What is done about a job while it is waited for.

    `report` is called with the bytes done and in all, about ten times a second and at the end. A job that has not ended
    `timeout` seconds after the watch was made is given up with a TimeoutError, which calls it by `title`.
    """

    def __init__(self, title: str, report: Callable[[int, int], None] | None = None, timeout: float | None = None) -> None:
        self._title = title
        self._report = report
        self._timeout = timeout
        self._began = self._moved = time.monotonic()
        self._done = 0

    def pause(self) -> float:
        """Seconds until the job is to be looked at again."""
        if self._timeout is None:
            return _POLL_SECONDS
        return min(_POLL_SECONDS, max(0.0, self._began + self._timeout - time.monotonic()))

    def look(self, done: int, total: int) -> None:
        """Takes note of how far the job has come."""
        now = time.monotonic()
        if done != self._done:
            self._done, self._moved = done, now
        if self._report is not None:
            self._report(done, total)
        if self._timeout is not None and now - self._began >= self._timeout:
            raise TimeoutError(f"{self._title}: {self._account(done, total, now)}")

    def finished(self, total: int) -> None:
        if self._report is not None:
            self._report(total, total)

    def of_opening(self) -> Watch:
        """One for what comes before the bytes that are reported."""
        watch = Watch(self._title, None, self._timeout)
        watch._began = watch._moved = self._began
        return watch

    def _account(self, done: int, total: int, now: float) -> str:
        assert self._timeout is not None
        if total == 0:
            return f"not done after {self._timeout:g} s, given up while its header was read"
        begin = f"not done after {self._timeout:g} s, given up at {done} of {total} bytes"
        if now - self._moved >= min(self._timeout, max(1.0, self._timeout / 2)):
            return f"{begin}: stalled, none came in the last {now - self._moved:.1f} s"
        rate = done / (now - self._began)
        return f"{begin}: slow, not stalled: at {rate / 1e6:.1f} MB/s the rest takes {(total - done) / rate:.1f} s"


def finish(job: Any, watch: Watch | None = None) -> Any:
    """Waits for a LoadJob or SaveJob and returns its result; an exception meanwhile (Ctrl-C, say) cancels it first."""
    wait(job, watch)
    with python_errors():
        return job.result()


def finish_load(job: Any, watch: Watch | None = None) -> dict[str, Any]:
    """The same for a LoadJob into new tensors: its names and tensors."""
    wait(job, watch)
    return tensors_of(job)


def tensors_of(job: Any) -> dict[str, Any]:
    """Names and tensors of a LoadJob into new tensors that has ended."""
    with python_errors(), _without_collection():
        return dict(zip(*job.result_lists(), strict=True))


def wait(job: Any, watch: Watch | None = None) -> None:
    """Waits until the job has ended, well or badly; an exception meanwhile cancels it first."""
    try:
        while not _ends_in(job, _POLL_SECONDS if watch is None else watch.pause()):
            if watch is not None:
                watch.look(*job.progress())
        if watch is not None:
            done, total = job.progress()
            if done == total:
                watch.finished(total)
    except BaseException:
        give_up(job)
        raise


def _ends_in(job: Any, seconds: float) -> bool:
    enter_library()
    try:
        ended: bool = job.wait(seconds)
        return ended
    finally:
        leave_library()


def _keep_for_ever(job: Any) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(job))


def _outlive(job: Any) -> None:
    while not _ends_in(job, _POLL_SECONDS):
        pass


def give_up(*jobs: Any) -> None:
    """Cancels the jobs. Those whose workers do not come back from the system, as from a server that does not answer, are left to
    them: whoever waits for it must not wait with them."""
    for job in jobs:
        job.cancel()
    until = time.monotonic() + _STOP_SECONDS
    for job in jobs:
        if not _ends_in(job, max(0.0, until - time.monotonic())):
            _abandon(job)


def _abandon(job: Any) -> None:
    if is_ending():  # a thread that is started now never begins
        _keep_for_ever(job)
        return
    try:
        threading.Thread(target=_outlive, args=(job,), name="veturboio-abandoned", daemon=True).start()
    except RuntimeError:  # there are no more threads
        _keep_for_ever(job)


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
