"""The end of processes that multiprocessing has started: they leave without the handlers by which connections end elsewhere."""

from __future__ import annotations

from multiprocessing import util

from veturboio._library import ops


def disconnect_at_exit() -> None:
    """Has this process, and those that are forked from it, end their connections to storage before they leave."""
    _register(None)
    util.register_after_fork(_register, lambda register: register(None))  # a fork forgets what is to be done at the end


def _register(_: object) -> None:
    util.Finalize(None, ops.disconnect, exitpriority=0)
