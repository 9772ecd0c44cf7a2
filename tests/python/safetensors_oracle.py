"""Calls that are made twice, of safetensors and of what stands in its place, and must do the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from sample_tensors import bits

import veturboio.safetensors
import veturboio.safetensors.torch


class Library:
    """All of a library's names in one place."""

    def __init__(self, name: str, *modules: Any) -> None:
        self.name = name
        for module in modules:
            for key in (key for key in dir(module) if not key.startswith("__")):
                setattr(self, key, getattr(module, key))


THEIRS = Library("theirs", safetensors, safetensors.torch)
OURS = Library("ours", veturboio.safetensors, veturboio.safetensors.torch)

#: What a test does with a library, in a folder with files that both may read.
Call = Callable[[Any], Any]


@dataclass(frozen=True)
class Outcome:
    """What a call gave, in a form that can be compared, or what it raised."""

    value: Any = None
    error: Exception | None = None

    def __repr__(self) -> str:
        return f"gave {self.value!r}" if self.error is None else f"raised {type(self.error).__name__}: {self.error}"


def outcome(call: Call, library: Library) -> Outcome:
    try:
        return Outcome(value=comparable(call(library)))
    except Exception as error:
        return Outcome(error=error)


def comparable(value: Any) -> Any:
    """Tensors bit for bit, with what tells where their elements lie; the order of dicts counts."""
    if isinstance(value, torch.Tensor):
        return ("tensor", value.dtype, tuple(value.shape), value.stride(), value.requires_grad, bits(value))
    if isinstance(value, np.ndarray):
        return ("array", value.dtype, value.shape, value.flags.writeable, value.tobytes())
    if type(value).__name__ in ("TensorSpec", "TensorMeta"):
        names = ("dtype", "shape", "data_ptr", "data_len", "data_offsets")
        return [getattr(value, name) for name in names if hasattr(value, name)]
    if isinstance(value, Mapping):
        return ("dict", [(comparable(key), comparable(item)) for key, item in value.items()])
    if isinstance(value, list | tuple | set):
        return (type(value).__name__, [comparable(item) for item in (sorted(value) if isinstance(value, set) else value)])
    if type(value).__module__ in ("builtins", "torch") and not type(value).__name__.startswith(("safe_open", "PySafeSlice")):
        return value
    return type(value).__name__


def assert_same_result(call: Call) -> None:
    theirs, ours = outcome(call, THEIRS), outcome(call, OURS)
    assert theirs.error is None, theirs
    assert ours == theirs


def assert_same_error(call: Call, *, text: bool) -> None:
    """Whoever catches theirs catches ours; with `text` it says the same."""
    theirs, ours = outcome(call, THEIRS), outcome(call, OURS)
    assert theirs.error is not None, theirs
    assert ours.error is not None, ours
    assert type(theirs.error).__name__ in [base.__name__ for base in type(ours.error).__mro__], ours
    if text:
        assert said(ours.error) == said(theirs.error)


def said(error: Exception) -> str:
    """The text, where white space does not count, nor the order in which Python happens to print a set."""
    text = " ".join(str(error).split())
    return re.sub(r"\{('[^{}]*')\}", lambda names: "{" + ", ".join(sorted(names[1].split(", "))) + "}", text)
