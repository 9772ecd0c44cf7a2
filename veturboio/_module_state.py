"""The parameters and buffers of a module as load_state_dict() sees them, and what it would say of a file that is to fill them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import _IncompatibleKeys

from veturboio._shared_tensors import overlapping


@dataclass(frozen=True)
class Slot:
    """A place in a module for a tensor of its state dict."""

    key: str
    module: torch.nn.Module
    name: str
    tensor: torch.Tensor

    def counts_batches(self) -> bool:
        """A file may be older than this buffer of a batch norm: then it keeps its value, and is not missing."""
        return isinstance(self.module, _NormBase) and self.name == "num_batches_tracked"


def slots_of(model: torch.nn.Module) -> list[Slot]:
    """In the order of the state dict. One tensor is in several of them where weights are tied."""
    return [
        Slot(f"{prefix}.{name}" if prefix else name, module, name, tensor)
        for prefix, module in model.named_modules(remove_duplicate=False)
        for name, tensor in _tensors_of(module).items()
    ]


def tied(slots: Iterable[Slot]) -> list[list[Slot]]:
    """The slots in groups of those whose tensors are the same, or the same view of the same memory."""
    groups: dict[object, list[Slot]] = {}
    for slot in slots:
        tensor = slot.tensor
        has_address = is_plain_tensor(tensor) and not tensor.is_meta and tensor.numel() > 0
        view = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()) if has_address else id(tensor)
        groups.setdefault(view, []).append(slot)
    return list(groups.values())


def put(slots: Iterable[Slot], tensor: torch.Tensor) -> None:
    """Gives tied slots a new tensor in the place of theirs: what was one parameter is one again."""
    new: dict[int, torch.Tensor] = {}
    for slot in slots:
        old = slot.tensor
        if id(old) not in new:
            is_parameter = isinstance(old, torch.nn.Parameter)
            new[id(old)] = torch.nn.Parameter(tensor, requires_grad=old.requires_grad) if is_parameter else tensor
        setattr(slot.module, slot.name, new[id(old)])


def is_plain(model: torch.nn.Module, groups: list[list[Slot]]) -> bool:
    """Whether load_state_dict() would do nothing but copy, or assign, each tensor to the place that its name says."""
    return (
        _is(model.load_state_dict, torch.nn.Module.load_state_dict)
        and not torch.__future__.get_swap_module_params_on_conversion()
        and all(map(_is_plain_module, model.modules()))
        and all(is_plain_tensor(slot.tensor) for group in groups for slot in group)
        and not overlapping({group[0].key: group[0].tensor for group in groups})
    )


def is_plain_tensor(tensor: torch.Tensor) -> bool:
    """Whether it is made of nothing but memory and the places of its elements in that, each in one of its own."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_nested or tensor.is_conj() or tensor.is_neg())
        and all(stride > 0 or size <= 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    )


def unexpected_keys(model: torch.nn.Module, names: Iterable[str]) -> list[str]:
    """Of names that are no slot's those of which load_state_dict() would tell, in its order."""
    positions = {prefix: i for i, (prefix, _) in enumerate(model.named_modules(remove_duplicate=False))}
    found = []
    for name in names:
        module, prefix, rest = model, "", name
        while True:
            head, dot, tail = rest.partition(".")
            if not dot or head not in module._modules:
                found.append((positions[prefix], name))
                break
            child = module._modules[head]
            if child is None:  # what was to be there is no longer wanted: load_state_dict() passes over it, too
                break
            module, prefix, rest = child, f"{prefix}.{head}" if prefix else head, tail
    return [name for _, name in sorted(found, key=lambda position_and_name: position_and_name[0])]


def size_mismatches(slots: Iterable[Slot], tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """What load_state_dict() says of tensors that do not fit; one of shape [1] fits where none has a shape, as it always did."""
    return [
        f"size mismatch for {slot.key}: copying a param with shape {tensor.shape} from checkpoint, "
        f"the shape in current model is {slot.tensor.shape}."
        for slot in slots
        if (tensor := tensors.get(slot.key)) is not None
        and tensor.shape != slot.tensor.shape
        and (slot.tensor.dim(), tensor.shape) != (0, (1,))
    ]


def raise_errors(model: torch.nn.Module, keys: _IncompatibleKeys, errors: list[str], *, strict: bool) -> None:
    """A RuntimeError in load_state_dict()'s words, if there is anything to say."""
    texts = []
    if strict and keys.missing_keys:
        texts.append("Missing key(s) in state_dict: {}. ".format(", ".join(f'"{key}"' for key in keys.missing_keys)))
    if strict and keys.unexpected_keys:
        texts.append("Unexpected key(s) in state_dict: {}. ".format(", ".join(f'"{key}"' for key in keys.unexpected_keys)))
    if texts + errors:
        lines = "\n\t".join(texts + errors)
        raise RuntimeError(f"Error(s) in loading state_dict for {type(model).__name__}:\n\t{lines}")


def _tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What is the module's own and in its state dict."""
    return {
        name: tensor
        for name, tensor in chain(module._parameters.items(), module._buffers.items())
        if tensor is not None and name not in module._non_persistent_buffers_set
    }


def _is_plain_module(module: torch.nn.Module) -> bool:
    return not (
        isinstance(module, torch.jit.ScriptModule)
        or module._load_state_dict_pre_hooks
        or module._load_state_dict_post_hooks
        or not _is(module.set_extra_state, torch.nn.Module.set_extra_state)
        or not _is(module._load_from_state_dict, torch.nn.Module._load_from_state_dict, _NormBase._load_from_state_dict)
    )


def _is(method: object, *functions: object) -> bool:
    return getattr(method, "__func__", None) in functions
