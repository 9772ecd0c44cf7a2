"""Tensors that share memory. The format has no way to say so: one of them is written, the metadata name the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set

import torch


def aliases(metadata: Mapping[str, str], names: Set[str] | Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The tensors that were left out of a file with these names and metadata: {dropped: kept}."""
    # "format" is what transformers and others note of the framework: {"format": "pt"}.
    return {dropped: kept for dropped, kept in metadata.items() if dropped != "format" and kept in names and dropped not in names}


def overlapping(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Groups of names whose tensors lie, in part or wholly, over the same bytes. Views of disjoint parts of a storage do not."""
    by_storage: defaultdict[tuple[torch.device, int], list[tuple[int, int, str]]] = defaultdict(list)
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and not tensor.is_nested and tensor.numel() > 0 and not tensor.is_meta:
            storage = tensor.untyped_storage().data_ptr()
            begin = int(tensor.storage_offset()) * tensor.itemsize
            by_storage[tensor.device, storage].append((begin, begin + _extent(tensor), name))
    groups = []
    for views in by_storage.values():
        views.sort()
        group: list[str] = []
        group_end = 0
        for begin, end, name in views:
            if begin >= group_end:
                groups.append(group)
                group = []
            group.append(name)
            group_end = max(group_end, end)
        groups.append(group)
    return [group for group in groups if len(group) > 1]


def same_view(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are the same elements of the same memory."""
    return (
        a.data_ptr() == b.data_ptr()
        and a.device == b.device
        and a.dtype == b.dtype
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.is_conj() == b.is_conj()
        and a.is_neg() == b.is_neg()
    )


def split_into_views(tensors: Mapping[str, torch.Tensor], group: list[str]) -> list[list[str]]:
    """Splits a group of overlapping tensors into lists of names for the same view, each sorted."""
    views: list[list[str]] = []
    for name in sorted(group):
        for view in views:
            if same_view(tensors[view[0]], tensors[name]):
                view.append(name)
                break
        else:
            views.append([name])
    return views


def _extent(tensor: torch.Tensor) -> int:
    """Bytes from the first element to the end of the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.itemsize
