"""Putting veturboio.safetensors in the place of the safetensors library, for programs that know only that."""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType, TracebackType
from typing import Any

# What is put in the place of what. Their exception stays: ours is one of it. Their helpers for shared tensors stay, too: they do
# not read or write anything.
_NAMES = {
    "safetensors": ("safe_open", "serialize", "serialize_file", "deserialize", "TensorSpec"),
    "safetensors.torch": ("load", "load_file", "load_model", "save", "save_file", "save_model"),
}

_lock = threading.RLock()
# While it is patched: by the identity of each of ours what it stands for, and where ours were before, by their own name.
_theirs: dict[int, Any] = {}
_at_home: set[tuple[str, str]] = set()


class patch_safetensors:  # noqa: N801  called as a function
    """Puts veturboio.safetensors in the place of the safetensors library, in all modules that have imported its names, too.

        >>> veturboio.patch_safetensors()
        >>> model = transformers.AutoModel.from_pretrained("...")  # loads by veturboio

    As a context manager it does so until the block ends. What is no module's (a variable in a function, an attribute of an
    object) stays what it is. Patching twice is patching once.

    Raises:
        ModuleNotFoundError: safetensors is not installed, so nobody uses it.
    """

    def __init__(self) -> None:
        with _lock:
            self._is_first = not _theirs
            if self._is_first:
                _patch()

    def __enter__(self) -> patch_safetensors:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._is_first:
            unpatch_safetensors()


def unpatch_safetensors() -> None:
    """Puts back what patch_safetensors() has replaced, also in modules that were imported since."""
    with _lock:
        for module, name, value in _names_of(_theirs):
            if (module.__name__, name) not in _at_home:
                setattr(module, name, value)
        _theirs.clear()
        _at_home.clear()


def _patch() -> None:
    ours: dict[int, Any] = {}
    for module_name, names in _NAMES.items():
        real = importlib.import_module(module_name)
        mine = importlib.import_module(f"veturboio.{module_name}")
        for name in names:
            if hasattr(real, name):  # TensorSpec is not in every release
                ours[id(getattr(real, name))] = getattr(mine, name)
                _theirs[id(getattr(mine, name))] = getattr(real, name)
    _at_home.update((module.__name__, name) for module, name, _ in _names_of(_theirs))
    for module, name, value in _names_of(ours):
        setattr(module, name, value)


def _names_of(values: dict[int, Any]) -> list[tuple[ModuleType, str, Any]]:
    """Where modules have, under any name, something by whose identity there is a value; and that value."""
    return [
        (module, name, values[id(thing)])
        for module_name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and module_name.partition(".")[0] != "veturboio"
        for name, thing in list(vars(module).items())
        if id(thing) in values
    ]
