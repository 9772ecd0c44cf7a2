"""What users pass, turned into what the operators take."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

FilePath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
MapLocation: TypeAlias = "str | int | torch.device"

_FILE_SCHEME = "file://"
_FLATTENED_URI = re.compile(rb"(?:file|sfcs):/(?!/)")
_MAX_THREADS = 32767  # the operators' limit


def operator_path(file: FilePath) -> str | bytes:
    """The path as an operator takes it: text, or bytes where those are no text (the file system does not ask)."""
    path = os.fsencode(file)
    if isinstance(file, os.PathLike) and _FLATTENED_URI.match(path):
        raise ValueError(f"{os.fsdecode(path)}: a pathlib.Path keeps one slash of the two after a scheme: pass the uri as a str")
    try:
        return path.decode()
    except UnicodeDecodeError:
        return path


def local_path(file: FilePath) -> str:
    """The path as Python's and PyTorch's own functions take it."""
    return os.fsdecode(file).removeprefix(_FILE_SCHEME)


def target_device(map_location: MapLocation) -> torch.device:
    if isinstance(map_location, bool) or not isinstance(map_location, str | int | torch.device):
        raise TypeError(
            f'map_location must be a device, as "cuda:0", an index or a torch.device, not {type(map_location).__name__}'
        )
    device = torch.device(map_location)
    if device.type not in ("cpu", "meta"):
        torch.empty(0, device=device)  # PyTorch's own words where there is no such device
    return device


def thread_count(num_thread: int | None) -> int:
    """For the operators, where 0 stands for as many as pay."""
    if num_thread is None:
        return 0
    if isinstance(num_thread, bool) or not isinstance(num_thread, int):
        raise TypeError(f"num_thread must be an int or None, not {type(num_thread).__name__}")
    if not 1 <= num_thread <= _MAX_THREADS:
        raise ValueError(f"num_thread is {num_thread}: give 1 to {_MAX_THREADS}, or None for as many as pay")
    return num_thread


def byte_count(max_host_bytes: int | None) -> int | None:
    """For the operators. TypeError, ValueError for what is no number of bytes."""
    if max_host_bytes is None:
        return None
    if isinstance(max_host_bytes, bool) or not isinstance(max_host_bytes, int):
        raise TypeError(f"max_host_bytes must be an int or None, not {type(max_host_bytes).__name__}")
    if not 0 <= max_host_bytes < 1 << 63:
        raise ValueError(f"max_host_bytes is {max_host_bytes}: give a number of bytes, or None")
    return max_host_bytes


def seconds(timeout: float | None) -> float | None:
    """TypeError, ValueError for what is no time."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout}: give a number of seconds, or None")
    return float(timeout)


def check_tensors(state_dict: Any) -> None:
    """Refuses what is not a mapping of names to tensors."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a dict of names and tensors, not a {type(state_dict).__name__}")
    for name, tensor in state_dict.items():
        if not isinstance(name, str):
            raise TypeError(f"the name {name!r} of a tensor must be a str, not a {type(name).__name__}")
        check_text(name, "name of a tensor")
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f'state_dict["{name}"] is a {type(tensor).__name__}, not a tensor')


def check_text(text: str, what: str) -> None:
    """Refuses half a surrogate pair, which no UTF-8 stands for."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the {what} {text!r} cannot be written as UTF-8: {error.reason}") from None
