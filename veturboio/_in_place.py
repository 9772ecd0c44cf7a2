"""Loading into tensors that exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from veturboio._arguments import check_tensors
from veturboio._errors import python_errors, readable
from veturboio._jobs import Watch, finish, warn
from veturboio._library import ops
from veturboio._models import Models, Names, Selection, checked_names
from veturboio._shared_tensors import aliases, same_view


def load_in_place(
    state_dict: dict[str, torch.Tensor], models: Models, selection: Selection, transfer: dict[str, Any], watch: Watch
) -> dict[str, torch.Tensor]:
    """Loads a selection of a model into the tensors of `state_dict`, which must be those; ValueError lists every mismatch."""
    check_tensors(state_dict)
    metadata = models.metadata() or {}
    dropped: dict[str, str] = {}
    if not metadata.keys().isdisjoint(state_dict):
        of_each = models.names_of_each() if selection.of_each is None else selection.of_each
        dropped = aliases(metadata, {name for of_file in of_each for name in of_file})
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, kept in dropped.items():
        if name in state_dict and kept in state_dict and not same_view(state_dict[name], state_dict[kept]):
            if (fault := _mismatch(state_dict[name], state_dict[kept])) is not None:
                raise ValueError(f'{models.title}: "{readable(name)}" {fault}, which the file has under "{readable(kept)}"')
            copies.append((state_dict[name], state_dict[kept]))
    targets = {name: tensor for name, tensor in state_dict.items() if name not in dropped}
    with python_errors():
        job = ops.start_load_models_(targets, models.native, names=selection.of_each, **transfer)
    finish(job, watch)
    warn(job.warnings(), stacklevel=4)
    _copy_all(copies)
    return state_dict


def some_of(loaded: Any, names: Names, title: str) -> dict[str, Any]:
    """What Models.select() does, for a file that PyTorch has loaded."""
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{title}: holds a {type(loaded).__name__}, not a state dict: load it without names")
    if callable(names):
        return {name: value for name, value in loaded.items() if names(name)}
    wanted = checked_names(names)
    if missing := sorted(wanted.difference(loaded)):
        raise ValueError(f"{title}: the model has no tensor named {', '.join(missing)}")
    return {name: value for name, value in loaded.items() if name in wanted}


def copy_into(state_dict: dict[str, torch.Tensor], loaded: Any, title: str) -> dict[str, torch.Tensor]:
    """What load_in_place() does, for a file that PyTorch has loaded."""
    check_tensors(state_dict)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{title}: holds a {type(loaded).__name__}, not a state dict")
    faults = []
    for name in {**loaded, **state_dict}:
        if name not in loaded:
            faults.append(f'"{name}" is not in the file')
        elif name not in state_dict:
            faults.append(f'"{name}" is in the file but not among the tensors')
        elif not isinstance(loaded[name], torch.Tensor):
            faults.append(f'"{name}" is a {type(loaded[name]).__name__} in the file')
        elif (fault := _mismatch(state_dict[name], loaded[name])) is not None:
            faults.append(f'"{name}" {fault}')
    if faults:
        raise ValueError(f"{title}: the tensors do not match the file, nothing was loaded: {readable('; '.join(faults))}")
    _copy_all([(tensor, loaded[name]) for name, tensor in state_dict.items()])
    return state_dict


def _mismatch(target: torch.Tensor, source: torch.Tensor) -> str | None:
    if target.layout != torch.strided or target.is_meta or target.is_quantized:
        return "is not a dense tensor with memory"
    if target.shape != source.shape:
        return f"has shape {list(target.shape)}, the file {list(source.shape)}"
    if target.dtype != source.dtype:
        return f"has dtype {target.dtype}, the file {source.dtype}"
    if any(stride == 0 and size > 1 for size, stride in zip(target.shape, target.stride(), strict=True)):
        return "has elements that share memory (it was made by expand()): give a copy of it"
    return None


def _copy_all(copies: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    with torch.no_grad():
        for target, source in copies:
            target.copy_(source)
