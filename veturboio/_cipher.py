"""What files need before they are opened: their keys, and the credentials of their storage."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any, TypeAlias

import torch

from veturboio._arguments import FilePath, operator_path
from veturboio._errors import python_errors
from veturboio._files import is_local
from veturboio._jobs import finish
from veturboio._library import ops

#: Of a key or an IV.
Bytes: TypeAlias = "bytes | bytearray | memoryview"


def find_cipher(
    file: FilePath, use_cipher: bool | None, key: Bytes | None, iv: Bytes | None, *, local: bool | None = None
) -> Any:
    """How a file is encrypted, for the operators; None for a plain one. A user's interrupt ends the search for the key. `local`
    is what is_local() says of the file, if that is known."""
    return _search("start_find_cipher", file, use_cipher, key, iv, local)


def make_cipher(file: FilePath, use_cipher: bool | None, key: Bytes | None, iv: Bytes | None) -> Any:
    """The same for a file that is to be written."""
    return _search("start_make_cipher", file, use_cipher, key, iv, None)


def read_header(file: FilePath) -> dict[str, str]:
    """The "mode" and "file_timestamp" of a file's cipher header; empty without one."""
    with python_errors():
        header: dict[str, str] = ops.read_cipher_header(operator_path(file))
    return header


def time_of(header: dict[str, str]) -> str:
    """When the file was encrypted, as its header says: for people."""
    seconds = int(header["file_timestamp"])
    if seconds == 0:
        return "unknown"  # a header need not have one
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError):
        return f"{seconds} seconds after 1970, no date of a calendar"


def is_switched_on() -> bool:
    """Whether files are encrypted where nobody says otherwise."""
    return os.environ.get("VETURBOIO_USE_CIPHER") == "1"


def _search(
    operator: str, file: FilePath, use_cipher: bool | None, key: Bytes | None, iv: Bytes | None, local: bool | None
) -> Any:
    if use_cipher is not None and not isinstance(use_cipher, bool):
        raise TypeError(f"use_cipher must be a bool or None, not {type(use_cipher).__name__}")
    plain = use_cipher is None and key is None and iv is None and not is_switched_on()
    if plain and (is_local(file) if local is None else local):
        return None  # the operators would say so too, only later
    path = operator_path(file)
    iv_copy, key_copy = _as_tensor(iv, "iv"), _as_tensor(key, "key")
    try:
        with python_errors():
            # PyTorch takes a tenth of a millisecond to find an operator for the first time, which plain files need not wait for.
            job = getattr(ops, operator)(path, use_cipher=use_cipher, key=key_copy, iv=iv_copy)
    finally:
        if key_copy is not None:
            key_copy.zero_()  # Python's memory is not wiped when it is freed
    return finish(job)


def _as_tensor(secret: Bytes | None, name: str) -> torch.Tensor | None:
    if secret is None:
        return None
    if not isinstance(secret, bytes | bytearray | memoryview):
        raise TypeError(f"{name} must be bytes, not {type(secret).__name__}")
    if len(secret) == 0:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(secret), dtype=torch.uint8)
