"""Pinned staging memory that is kept between loads."""

from __future__ import annotations

from typing import Any

import torch

import veturboio._library  # noqa: F401  registers the class


class IOHelper:
    """Pinned host memory through which loads to an accelerator and saves from it pass, kept from one to the next.

    A load that has to get and pin its own takes 10 to 20 ms longer (2.2 GB to an H200: 66 ms instead of 49); whoever loads more
    than once gives the same helper each time.
    May be used by many threads at once. On the CPU it holds nothing. TorchScript has it as `torch.classes.veturbo.IOHelper`.
    """

    def __init__(self) -> None:
        self.native: Any = torch.classes.veturbo.IOHelper()

    def bytes(self) -> int:
        """Bytes of pinned memory that are held."""
        return int(self.native.bytes())

    def release(self) -> None:
        """Gives the memory back to the system, what is in use as soon as that ends."""
        self.native.release()

    def __repr__(self) -> str:
        return f"IOHelper({self.bytes()} bytes)"


def init_io_helper() -> IOHelper:
    """Makes a helper for `load(..., use_pinmem=True, helper=...)`."""
    return IOHelper()


def helper_of_several(helper: IOHelper | None, use_pinmem: bool) -> Any:
    """For loads that follow each other, as the operators take it: the caller's, if it is to be used, or one for these alone."""
    return native_helper(helper if use_pinmem and helper is not None else IOHelper())


def native_helper(helper: IOHelper | None) -> Any:
    """The helper as the operators take it."""
    if helper is None or isinstance(helper, torch.ScriptObject):
        return helper
    if not isinstance(helper, IOHelper):
        raise TypeError(f"helper must be a veturboio.IOHelper or None, not {type(helper).__name__}")
    return helper.native
