"""Loading into a module: what load_state_dict() does with a file's tensors, without having them all beside the module's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.module import _IncompatibleKeys

from veturboio._arguments import FilePath, MapLocation, byte_count, seconds, target_device, thread_count
from veturboio._cipher import Bytes
from veturboio._errors import TorchFileError, python_errors
from veturboio._io_helper import IOHelper, helper_of_several
from veturboio._jobs import Watch, finish, finish_load, warn
from veturboio._library import ops
from veturboio._load import load
from veturboio._memory import Memory
from veturboio._models import Location, Models, title_of
from veturboio._module_state import (
    Slot,
    is_plain,
    is_plain_tensor,
    put,
    raise_errors,
    size_mismatches,
    slots_of,
    tied,
    unexpected_keys,
)
from veturboio._progress import PartsReport, Progress, reporting
from veturboio._shared_tensors import aliases

# Of tensors that are loaded to be converted. Enough for several threads, and little beside a model.
_BATCH_BYTES = 64 << 20


def load_into(
    model: torch.nn.Module,
    file: FilePath | Memory,
    strict: bool = True,
    assign: bool = False,
    *,
    map_location: MapLocation = "cpu",
    num_thread: int | None = None,
    helper: IOHelper | None = None,
    use_pinmem: bool = False,
    use_direct_io: bool | None = None,
    use_cipher: bool | None = None,
    max_host_bytes: int | None = None,
    progress: Progress = False,
    timeout: float | None = None,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> _IncompatibleKeys:
    """Loads a module's parameters and buffers, as `model.load_state_dict(veturboio.load(file), strict, assign)` does, without a
    second copy of them: what has the file's dtype is read into its own memory, the rest is converted a few tensors at a time.

    Unlike load_state_dict() it finds what does not match before anything is changed, gives memory to what is on the meta device,
    keeps tied weights tied, and takes a file that has them under any one of their names. A module that loads its state in a way
    of its own (hooks, extra state, quantized or other special tensors) is given a state dict that is loaded beside it.

    Args:
        model: The module. Buffers that are not persistent are left alone.
        file: As for load(): a path or uri, of several files that of their directory or index, or a model in memory; and any of
            torch.save's.
        strict: Whether names that are only on one side are an error.
        assign: Whether the tensors take the place of the module's instead of filling them: the dtypes are then the file's, the
            device that of map_location. Of a parameter only requires_grad stays.
        map_location: The device for tensors that are assigned, and for those that are on the meta device, which without assign
            keep the module's dtype. Others stay where they are.
        num_thread, helper, use_pinmem, use_direct_io, use_cipher, key, iv, max_host_bytes, progress, timeout: As for load().

    Returns:
        The names that are only in the module, as `missing_keys`, and those that are only in the file, as `unexpected_keys`.

    Raises:
        RuntimeError: In load_state_dict()'s words: names that are only on one side (strict), and shapes that differ.
        Otherwise as load(). After an error while the data are read the module's tensors may be in part the file's.
    """
    device = target_device(map_location)
    transfer = {
        "num_threads": thread_count(num_thread),
        "helper": helper_of_several(helper, use_pinmem),
        "max_host_bytes": byte_count(max_host_bytes),
    }
    slots = slots_of(model)
    groups = tied(slots)
    with reporting(title_of(file), progress) as report:
        source: _Source | None = None
        parts = PartsReport(report)
        watch = Watch(title_of(file), parts, seconds(timeout))
        location = Location(file, use_cipher, key, iv)
        with suppress(TorchFileError):
            source = _Source(location.open(use_direct_io, watch.of_opening()), transfer, watch, parts)
        if source is None:
            loaded = load(
                file if location.memory is None else location.memory,  # a file object has been read
                device,
                num_thread=num_thread,
                use_direct_io=use_direct_io,
                use_cipher=use_cipher,
                max_host_bytes=max_host_bytes,
                progress=report or False,
                timeout=timeout,
                key=key,
                iv=iv,
            )
            keys = _load_state_dict(model, loaded, groups, device, strict=strict, assign=assign)
        elif is_plain(model, groups):
            keys = _load_plain(model, slots, groups, source, device, strict=strict, assign=assign)
        else:
            source.describe(source.names)
            loaded = source.load(source.names, device)
            keys = _load_state_dict(model, loaded, groups, device, strict=strict, assign=assign)
    if source is not None:
        warn(source.warnings, stacklevel=3)
    return keys


class _Source:
    """The tensors of a model that is open."""

    def __init__(self, models: Models, transfer: dict[str, Any], watch: Watch, parts: PartsReport) -> None:
        self._models = models
        self._transfer = transfer
        self._watch = watch
        self._parts = parts
        self._sizes: dict[str, int] = {}
        self._file_of = {name: i for i, names in enumerate(models.names_of_each()) for name in names}
        self._kept = aliases(models.metadata() or {}, self._file_of.keys())
        #: Those of tensors that are in the files under another name included.
        self.names = [*self._file_of, *self._kept]
        self.warnings: list[str] = []

    def stored_name(self, name: str) -> str:
        """The name under which a tensor is in a file."""
        return self._kept.get(name, name)

    def describe(self, names: Collection[str]) -> dict[str, torch.Tensor]:
        """Tensors without memory. They are what is going to be loaded."""
        described = self.load(names, torch.device("meta"))
        self._sizes = {self.stored_name(name): tensor.nbytes for name, tensor in described.items()}
        self._parts.total = sum(self._sizes.values())
        return described

    def load(self, names: Collection[str], device: torch.device) -> dict[str, torch.Tensor]:
        of_each = self._of_each(map(self.stored_name, names))
        with python_errors():
            job = ops.start_load_models(self._models.native, device, names=of_each, **self._transfer)
        loaded = finish_load(job, self._watch)
        self.warnings += job.warnings()
        return {name: loaded[self.stored_name(name)] for name in names}

    def read_into(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Fills tensors, by their names in the files, whose dtypes and shapes they have."""
        of_each = self._of_each(tensors)
        with python_errors():
            job = ops.start_load_models_(tensors, self._models.native, names=of_each, **self._transfer)
        finish(job, self._watch)
        self.warnings += job.warnings()

    def _of_each(self, names: Iterable[str]) -> list[list[str]]:
        result: list[list[str]] = [[] for _ in self._models.native]
        wanted = dict.fromkeys(names)
        for name in wanted:
            result[self._file_of[name]].append(name)
        self._parts.begin(sum(self._sizes.get(name, 0) for name in wanted))
        return result


def _load_plain(
    model: torch.nn.Module,
    slots: list[Slot],
    groups: list[list[Slot]],
    source: _Source,
    device: torch.device,
    *,
    strict: bool,
    assign: bool,
) -> _IncompatibleKeys:
    names = dict.fromkeys(source.names)
    described = source.describe([slot.key for slot in slots if slot.key in names])
    wanted = [group for group in groups if any(slot.key in described for slot in group)]
    found = {slot.key for group in wanted for slot in group}
    others = [slot for slot in slots if slot.key not in found]
    missing = [slot.key for slot in others if not slot.counts_batches()]
    unexpected = [name for name in names if name not in described]
    keys = _IncompatibleKeys(missing, unexpected_keys(model, unexpected) if unexpected else [])
    raise_errors(model, keys, size_mismatches(slots, described), strict=strict)
    _fill(wanted, described, source, device, assign=assign)
    for slot in others:
        if slot.counts_batches() and slot.tensor.is_meta:
            put([slot], torch.zeros_like(slot.tensor, device=device))
    return keys


@torch.no_grad()
def _fill(
    groups: list[list[Slot]], described: dict[str, torch.Tensor], source: _Source, device: torch.device, *, assign: bool
) -> None:
    """Brings each group of slots the tensor that the model has for it. `described` are those, without memory."""
    assigned: list[tuple[list[Slot], str]] = []
    in_place: dict[str, torch.Tensor] = {}
    repeated: list[tuple[torch.Tensor, torch.Tensor]] = []
    converted: list[_Conversion] = []
    new: list[tuple[list[Slot], torch.Tensor]] = []
    for group in groups:
        name = [slot.key for slot in group if slot.key in described][-1]  # of several, load_state_dict() copies this one last
        stored, given, target = source.stored_name(name), described[name], group[0].tensor.detach()
        has_dtype = target.dtype == given.dtype
        if assign or (target.is_meta and has_dtype):
            assigned.append((group, stored))
            continue
        if target.is_meta:
            target = torch.empty_like(target, device=device)
            new.append((group, target))
        if not has_dtype:
            converted.append(_Conversion(target.view(given.shape), stored, given.nbytes))
        elif stored in in_place:
            repeated.append((target.view(given.shape), in_place[stored]))
        else:
            in_place[stored] = target.view(given.shape)
    source.read_into(in_place)
    for target, filled in repeated:
        target.copy_(filled)
    for batch in _batches(converted):
        loaded = source.load([one.stored for one in batch], batch[0].target.device)
        for one in batch:
            one.target.copy_(loaded[one.stored])
        del loaded  # before the next are there
    copied = [target for target, _ in repeated] + [one.target for one in converted]
    for place in {target.device for target in copied if target.device.type != "cpu"}:
        torch.accelerator.current_stream(place).synchronize()  # for every stream, as what was loaded is
    loaded = source.load([stored for _, stored in assigned], device)
    new += [(group, loaded[stored].view(group[0].tensor.shape)) for group, stored in assigned]
    for group, tensor in new:
        put(group, tensor)


@dataclass(frozen=True)
class _Conversion:
    """A tensor that is to be filled from one of another dtype."""

    target: torch.Tensor
    stored: str
    num_bytes: int


def _batches(conversions: list[_Conversion]) -> Iterator[list[_Conversion]]:
    """To be loaded together, of one device each."""
    batch: list[_Conversion] = []
    size = 0
    for conversion in conversions:
        if batch and (size + conversion.num_bytes > _BATCH_BYTES or conversion.target.device != batch[0].target.device):
            yield batch
            batch, size = [], 0
        batch.append(conversion)
        size += conversion.num_bytes
    if batch:
        yield batch


def _load_state_dict(
    model: torch.nn.Module, loaded: Any, groups: list[list[Slot]], device: torch.device, *, strict: bool, assign: bool
) -> _IncompatibleKeys:
    """PyTorch's own way, for a module whose hooks have a say in it."""
    state_dict = copy(loaded)  # a state dict may have attributes, which an own dict would lack
    for group in groups:
        present = [slot.key for slot in group if slot.key in state_dict]
        if not present:
            continue
        for slot in group:
            state_dict.setdefault(slot.key, state_dict[present[-1]])
        if not assign and group[0].tensor.is_meta and is_plain_tensor(group[0].tensor):
            put(group, torch.empty_like(group[0].tensor, device=device))
    keys: _IncompatibleKeys = model.load_state_dict(state_dict, strict=strict, **({"assign": True} if assign else {}))
    return keys
