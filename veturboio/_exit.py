"""The end of processes: connections end, and threads that nobody waits for stay out of its way."""

from __future__ import annotations

import atexit
import os
import threading
import time
from multiprocessing import util

from veturboio._library import ops

# How long threads in the library are waited for. They look after their jobs ten times a second.
_PARK_SECONDS = 1.0

_inside: set[int] = set()  # the threads that are in the library
_ending: int | None = None  # the thread in which the interpreter ends


def disconnect_at_exit() -> None:
    """Has this process, and those that are forked from it, end their connections to storage before they leave: processes that
    multiprocessing has started leave without the handlers by which connections end elsewhere."""
    _register(None)
    util.register_after_fork(_register, lambda register: register(None))  # a fork forgets what is to be done at the end


def park_threads_at_exit() -> None:
    """Has daemon threads that load or save stop where Python can end them.

    One that comes back from the library while the interpreter ends is ended in PyTorch's C++ code, when it asks for the
    interpreter's lock, and takes the whole process along: "terminate called without an active exception".
    """
    atexit.register(_park_others)
    os.register_at_fork(after_in_child=_inside.clear)


def enter_library() -> None:
    """Before a call to it that may take a while."""
    thread = threading.get_ident()
    if _ending is not None:
        _park(thread)
    _inside.add(thread)


def leave_library() -> None:
    thread = threading.get_ident()
    _inside.discard(thread)
    if _ending is not None:
        _park(thread)


def is_ending() -> bool:
    """Whether the interpreter is."""
    return _ending is not None


def _park(thread: int) -> None:
    while thread != _ending:
        time.sleep(3600)


def _park_others() -> None:
    global _ending
    _ending = threading.get_ident()
    if threading.active_count() == 1:
        return
    deadline = time.monotonic() + _PARK_SECONDS
    time.sleep(0.01)  # for who is between two calls
    while _inside - {_ending} and time.monotonic() < deadline:
        time.sleep(0.001)


def _register(_: object) -> None:
    util.Finalize(None, ops.disconnect, exitpriority=0)
