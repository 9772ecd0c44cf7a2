"""What cannot be saved, in the words that safetensors has for it."""

from __future__ import annotations

from typing import Any

import torch

from veturboio.safetensors._dtypes import TORCH_DTYPES
from veturboio.safetensors._shared import _find_shared_tensors

_DTYPES = frozenset(TORCH_DTYPES.values())


def check_tensors(tensors: Any) -> None:
    """Refuses what is not a dict of dense contiguous tensors with memory of their own."""
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"Key `{name}` is invalid, expected torch.Tensor but received {type(tensor)}")
    sparse = [name for name, tensor in tensors.items() if tensor.layout != torch.strided]
    if sparse:
        raise ValueError(
            f"You are trying to save a sparse tensors: `{sparse}` which this library does not support. You can make it a dense "
            "tensor before saving with `.to_dense()` but be aware this might make a much larger file than needed."
        )
    shared = [names for names in _find_shared_tensors(tensors) if len(names) > 1]
    if shared:
        raise RuntimeError(
            "Some tensors share memory, this will lead to duplicate memory on disk and potential differences when loading them "
            f"again: {shared}. A potential way to correctly save your model is to use `save_model`. More information at "
            "https://huggingface.co/docs/safetensors/torch_shared_tensors"
        )
    for name, tensor in tensors.items():
        check_tensor(name, tensor)


def check_tensor(name: str, tensor: torch.Tensor) -> None:
    """Refuses a dense tensor that is not contiguous, has no memory, or a dtype that the format lacks."""
    if not tensor.is_contiguous():
        raise ValueError(
            f"You are trying to save a non contiguous tensor: `{name}` which is not allowed. It either means you are trying to "
            "save tensors which are reference of each other in which case it's recommended to save only the full tensors, and "
            "reslice at load time, or simply call `.contiguous()` on your tensor to pack it before saving."
        )
    if tensor.is_meta:
        raise NotImplementedError(f"Cannot copy out of meta tensor; no data! It is `{name}`")
    if tensor.dtype not in _DTYPES:
        raise KeyError(f"{tensor.dtype}: the format has no such dtype, which `{name}` has")
