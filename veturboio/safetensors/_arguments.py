"""What callers pass, checked as safetensors checks it."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import torch

from veturboio._arguments import MapLocation
from veturboio.safetensors._errors import SafetensorError

Filename: TypeAlias = "str | os.PathLike[str]"

_BACKENDS = ("mmap", "pread")
_TORCH = ("pt", "torch", "pytorch")
_NUMPY = ("np", "numpy")


def checked_text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"argument {what!r}: {type(value).__name__!r} object is not an instance of 'str'")
    return value


def checked_filename(filename: Any) -> Filename:
    """A path as text: to veturboio.open() bytes are what is in a file."""
    if isinstance(filename, os.PathLike):
        checked_text(os.fspath(filename), "filename")
        return filename
    return checked_text(filename, "filename")


def checked_device(device: MapLocation | None) -> torch.device:
    """The device, which need not be there."""
    if device is None:
        return torch.device("cpu")
    if isinstance(device, torch.device):
        return device
    try:
        if isinstance(device, str):
            return torch.device(device)
        if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
            accelerator = torch.accelerator.current_accelerator()
            return torch.device("cuda" if accelerator is None else accelerator.type, device)
    except RuntimeError:
        pass
    raise SafetensorError(f"device {device} is invalid")


def checked_backend(backend: str) -> str:
    if checked_text(backend, "backend") not in _BACKENDS:
        raise SafetensorError(f'backend "{backend}" is invalid (expected one of: "mmap", "pread")')
    return backend


def is_numpy(framework: str, device: torch.device) -> bool:
    """Whether arrays of NumPy's are wanted, not tensors of PyTorch's."""
    if checked_text(framework, "framework") in _TORCH:
        return False
    if framework not in _NUMPY:
        raise SafetensorError(f'framework {framework} is invalid: veturboio has "pt" (PyTorch) and "np" (NumPy)')
    if device.type != "cpu":
        raise SafetensorError(f"Device {device} is not supported for framework numpy")
    return True
