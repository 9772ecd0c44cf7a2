"""Tensors that share memory, as safetensors looks at them. transformers, peft and others use these functions, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from veturboio._shared_tensors import overlapping


def storage_ptr(tensor: torch.Tensor) -> int:
    """The address of the tensor's storage; 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def storage_size(tensor: torch.Tensor) -> int:
    """Bytes of the tensor's storage; of the tensor itself where it has none."""
    try:
        return tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):
        return tensor.nbytes


def _end_ptr(tensor: torch.Tensor) -> int:
    """The address behind the tensor's last element."""
    if tensor.nelement() == 0:
        return tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.itemsize


def _is_complete(tensor: torch.Tensor) -> bool:
    """Whether the tensor is all of its storage."""
    return tensor.data_ptr() == storage_ptr(tensor) and tensor.nbytes == storage_size(tensor)


def _find_shared_tensors(state_dict: Mapping[str, torch.Tensor]) -> list[set[str]]:
    """The names of tensors with memory, in sets of those that lie over the same bytes. Most are alone."""
    groups = [set(group) for group in overlapping(state_dict)]
    shared = set().union(*groups)
    alone = [{name} for name, tensor in state_dict.items() if name not in shared and _has_memory(tensor)]
    return groups + alone


def _has_memory(tensor: torch.Tensor) -> bool:
    return not tensor.is_meta and storage_ptr(tensor) != 0 and storage_size(tensor) != 0


def _remove_duplicate_names(
    state_dict: Mapping[str, torch.Tensor],
    *,
    preferred_names: Iterable[str] | None = None,
    discard_names: Iterable[str] | None = None,
) -> dict[str, list[str]]:
    """Which names to leave out, so that each memory is saved once: {kept: [left out, ...]}.

    What is kept is all of its storage: the first of the preferred names that is, else the first that is not to be discarded.
    """
    preferred = set(preferred_names or ())
    discarded = set(discard_names or ())
    left_out: dict[str, list[str]] = {}
    for names in _find_shared_tensors(state_dict):
        complete = {name for name in names if _is_complete(state_dict[name])}
        if not complete:
            raise RuntimeError(
                "Error while trying to find names to remove to save state dict, but found no suitable name to keep for saving "
                f"amongst: {names}. None is covering the entire storage. Refusing to save/load the model since you could be "
                "storing much more memory than needed. Save clones of these tensors."
            )
        kept = min(complete & preferred or complete - discarded or complete)
        if len(names) > 1:
            left_out[kept] = sorted(names - {kept})
    return left_out
