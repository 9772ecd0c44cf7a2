"""The exceptions of safetensors, for the engine's."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from veturboio._errors import FileFormatError

_Base: Any
try:
    # Theirs where it is installed: `except safetensors.SafetensorError`, in code that has never heard of us, catches ours too.
    # Who only imports veturboio does not wait for it: that does not import this package.
    from safetensors import SafetensorError as _Base
except ImportError:
    _Base = Exception


class SafetensorError(_Base):  # type: ignore[misc]
    """A file that is not what the format says, a tensor that it lacks, or a request that cannot be met, as in safetensors.

    Its __cause__, where it has one, is the engine's own exception, which has the file, the tensor and the offset.
    """


class reading:  # noqa: N801  a class, for its speed: see python_errors
    """Raises what safetensors raises when reading `file` fails inside, which is when it does what `what` says."""

    __slots__ = ("_file", "_what")

    def __init__(self, file: Any, what: str = "deserializing header") -> None:
        self._file = file
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, FileNotFoundError):
            # "No such file or directory: NAME", whoever says so, or what else is not there; without an errno, which would be a
            # part of the text.
            usual = os.strerror(errno.ENOENT)
            what = usual if usual in str(error.strerror) else error.strerror
            raise FileNotFoundError(f"{what}: {os.fsdecode(error.filename or self._file)}") from error
        if isinstance(error, FileFormatError):
            raise SafetensorError(f"Error while {self._what}: {error}") from error


@contextmanager
def writing() -> Iterator[None]:
    """Raises what safetensors raises when writing fails inside."""
    try:
        yield
    except OSError as error:
        cause = f"{error.strerror} (os error {error.errno})"
        raise SafetensorError(f'Error while serializing: I/O error: {cause} at path "{error.filename}"') from error
