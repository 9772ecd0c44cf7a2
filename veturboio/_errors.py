"""Python's exceptions for the engine's errors."""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from veturboio._exit import enter_library, leave_library
from veturboio._library import ops


class FileFormatError(ValueError):
    """A file whose bytes are not what its format says.

    Attributes:
        filename: The file.
        tensor: Name of the tensor at fault, or None.
        offset: Offset in bytes from the start of the file at which the fault was seen, or None.
    """

    def __init__(self, message: str, filename: str, tensor: str | None = None, offset: int | None = None) -> None:
        super().__init__(message, filename, tensor, offset)
        self.filename = filename
        self.tensor = tensor
        self.offset = offset

    def __str__(self) -> str:
        return str(self.args[0])


class CipherKeyError(ValueError):
    """The key of an encrypted file cannot be had, or is wrong.

    Attributes:
        filename: The file.
    """

    def __init__(self, message: str, filename: str) -> None:
        super().__init__(message, filename)
        self.filename = filename

    def __str__(self) -> str:
        return str(self.args[0])


class TorchFileError(Exception):
    """The file is one of torch.save's, which the engine leaves to PyTorch. Users never see it."""


def readable(text: str) -> str:
    """Without characters that a terminal or a log would obey: names come from files."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class python_errors:  # noqa: N801  a class, since of a call that takes microseconds a generator would be half
    """Raises what the operators called inside throw as the exceptions that Python's users expect."""

    __slots__ = ()

    def __enter__(self) -> None:
        enter_library()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        leave_library()
        if isinstance(error, RuntimeError | ValueError):
            translated = _from_last_error(error)
            if translated is not error:
                try:
                    raise translated from None
                finally:
                    # Or it would refer to itself by way of this frame, and to all that its callers have, keys too, until Python
                    # looks for cycles.
                    del translated


def _from_last_error(error: Exception) -> BaseException:
    kind, code, path, tensor, offset, cause = ops.last_error()
    message = str(error)
    if cause not in message:
        kind = ""  # of an earlier call: what PyTorch itself throws, for an argument of a wrong type, is not noted
    file = os.fsdecode(path.encode("latin-1"))
    if kind == "io":
        text = cause if offset < 0 else f"{cause} (at byte {offset})"
        # OSError picks its subclass by errno: FileNotFoundError, PermissionError, IsADirectoryError and so on.
        return OSError(code or errno.EIO, text, file) if file else OSError(code or errno.EIO, text)
    if kind == "format":
        return FileFormatError(message, file, tensor or None, offset if offset >= 0 else None)
    if kind in ("no_key", "wrong_key"):
        return CipherKeyError(message, file)
    if kind == "torch_file":
        return TorchFileError(message)
    if kind == "invalid_argument":
        return ValueError(message)
    if kind == "out_of_memory":
        return MemoryError(message)
    if _NO_MEMORY.search(message):
        return MemoryError("not enough memory" if message == "std::bad_alloc" else message)
    return error  # PyTorch's own


@contextmanager
def torch_file_errors(file: str) -> Iterator[None]:
    """Raises FileFormatError for what torch.load raises inside when `file` is damaged; what it raises when the system fails it
    becomes an OSError or MemoryError that names the file. Its other exceptions are left alone."""
    try:
        yield
    except Exception as error:
        if _means_damage(error):
            raise FileFormatError(f"{file}: damaged torch file: {error or type(error).__name__}", file) from error
        if isinstance(error, OSError):
            _name_file(error, file)
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
            raise MemoryError(f"{file}: {error}") from error
        if isinstance(error, RuntimeError) and (refused := _SYSTEM_ERROR.search(str(error))) is not None:
            call, reason = refused["call"] or "read", refused["reason"] or refused["read_reason"]
            code = next((code for code in errno.errorcode if os.strerror(code) == reason), errno.EIO)
            if code == errno.ENOMEM:
                raise MemoryError(f"{file}: {call}: {reason}") from error
            raise OSError(code, f"{call}: {reason}", file) from error
        raise


@contextmanager
def file_errors(file: str) -> Iterator[None]:
    """Has an OSError from inside name the file. Those of Python's file objects do where opening it fails, but not where reading
    does."""
    try:
        yield
    except OSError as error:
        _name_file(error, file)
        raise


def _name_file(error: OSError, file: str) -> None:
    # torch.load may have been given a descriptor's path.
    if error.filename is None or str(error.filename).startswith("/proc/self/fd/"):
        error.filename = file


def _means_damage(error: Exception) -> bool:
    # torch.load checks little: where a file is cut short or has wrong bytes its unpickler stumbles over what is not there. What
    # else it raises may be true of a good file: a class that weights_only forbids, a device that is not there.
    if isinstance(error, EOFError | IndexError | UnicodeDecodeError | struct.error):
        return True
    if isinstance(error, OSError):  # it sought to before the file's start; errors of the system's have other numbers
        return error.errno == errno.EINVAL and error.filename is None
    return any(text in str(error) for text in _DAMAGE_TEXTS)


_DAMAGE_TEXTS = ("PytorchStreamReader", "unexpected EOF", "corrupt file?", "pickle data was truncated")

# As PyTorch tells that there is no memory for its containers, and for a tensor.
_NO_MEMORY = re.compile(r"^std::bad_alloc$|DefaultCPUAllocator: can't allocate memory")

# As PyTorch tells of a call to the system: "unable to mmap 10 bytes from file </file>: Cannot allocate memory (12)", and
# "read(): fd 3 failed with Input/output error".
_SYSTEM_ERROR = re.compile(
    r"unable to (?P<call>open|stat|mmap)\b.*: (?P<reason>[^:]+) \(\d+\)|read\(\): fd \d+ failed with (?P<read_reason>[\w /]+)"
)
