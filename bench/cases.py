"""What peers.py measures: the cases, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from model_files import Model, llama, single, small, tiny

SHM, DISK = "shm", "disk"


@dataclass(frozen=True)
class Case:
    """One comparison. `ends` are what the clock is read at, the last of which the ratios are of; `where` are the kinds of models
    and the places that are measured if nothing else is asked for.
    """

    name: str
    title: str
    action: str  # load, save, convert or start
    modes: tuple[str, ...]  # of loaders.LOADERS, savers.SAVERS or savers.CONVERTERS; the first is the one that others are held to
    limit: str | None  # what limits.py holds it against
    ends: tuple[str, ...] = ("returned", "touched")
    cold: bool = False
    where: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"llama": (SHM,)})

    @property
    def ours(self) -> str:
        """The mode that the others are compared with."""
        return self.modes[0]


_OWNED = (
    "veturboio",
    "torch",
    "safetensors 0.8 clone",
    "safetensors 0.9 pread",
    "fastsafetensors",
    "runai streamer",
    "tensorizer",
)
_MAPPED = ("veturboio mmap", "torch mmap", "safetensors 0.8 mmap", "safetensors 0.9 mmap")
_COLD = (*_OWNED, "veturboio mmap", "torch mmap", "safetensors 0.9 mmap")
_DROP_IN = (
    "drop-in safe_open",
    "drop-in load_file",
    "safetensors 0.8 safe_open",
    "safetensors 0.9 safe_open",
    "safetensors 0.8 mmap",
    "safetensors 0.9 mmap",
)
_SAVERS = ("veturboio", "safetensors 0.8", "safetensors 0.9", "torch", "veturboio .pt", "tensorizer")
_ENCRYPTED = ("veturboio", "veturboio AES-128", "veturboio AES-256")
_CONVERTERS = ("veturboio", "torch + safetensors 0.8", "torch + safetensors 0.9")
_STARTS = ("veturboio", "torch", "safetensors 0.8 mmap", "safetensors 0.9 mmap")

_BOTH = (SHM, DISK)
_SAVED = ("returned", "durable")
_STARTED = ("import torch", "import", "returned")

CASES = (
    Case(
        "load",
        "load into memory of one's own, page cache warm",
        "load",
        _OWNED,
        "buffered",
        where={"llama": _BOTH, "single": (SHM,), "small": (SHM,)},
    ),
    Case(
        "load-mmap",
        "load by mapping, page cache warm",
        "load",
        _MAPPED,
        "mapped",
        where={"llama": _BOTH, "small": (SHM,)},
    ),
    Case(
        "drop-in",
        "load by safetensors' own names, page cache warm",
        "load",
        _DROP_IN,
        "mapped",
        where={"llama": (SHM,), "small": (SHM,)},
    ),
    Case("load-cold", "load, page cache cold", "load", _COLD, "direct", cold=True, where={"llama": (DISK,)}),
    Case("load-encrypted", "load an encrypted file, page cache warm", "load", _ENCRYPTED, "buffered"),
    Case(
        "load-pt",
        "load a file of torch.save, page cache warm",
        "load",
        ("veturboio .pt", "veturboio", "torch"),
        "buffered",
    ),
    Case("save", "save", "save", _SAVERS, "write", _SAVED, where={"llama": _BOTH}),
    Case("save-encrypted", "save encrypted", "save", _ENCRYPTED, "write", _SAVED),
    Case(
        "convert",
        "convert a file of torch.save to safetensors",
        "convert",
        _CONVERTERS,
        None,
        _SAVED,
        where={"llama": (DISK,)},
    ),
    Case(
        "start",
        "import, and the first load of 64 KiB in a process",
        "start",
        _STARTS,
        "plain",
        _STARTED,
        where={"tiny": (SHM,)},
    ),
)


def belongs(case: Case, model_name: str, place: str, models: list[str] | None, places: list[str] | None) -> bool:
    """Whether a case is measured with a model in a place, where these models and places were asked for, if any were. Only tiny
    models and first loads go together in any case, and only what is on a disk can be cold.
    """
    kind = "single" if model_name.endswith("GiB") else model_name
    if (kind == "tiny") != ("tiny" in case.where) or (case.cold and place != DISK):
        return False
    if models is None and kind not in case.where:
        return False
    if places is not None:
        return place in places
    return any(place in of_kind for of_kind in ([case.where[kind]] if kind in case.where else case.where.values()))


def model(name: str) -> Model:
    """The model of a name: llama, small, tiny, or a size in GiB as in 2GiB, for one tensor.

    Raises:
        ValueError: There is none of that name.
    """
    if name in ("llama", "small", "tiny"):
        return {"llama": llama, "small": small, "tiny": tiny}[name]()
    if (size := re.fullmatch(r"(\d+(?:\.\d+)?)GiB", name)) and float(size[1]) > 0:
        return single(float(size[1]))
    raise ValueError(f"{name} is no model: llama, small, tiny, or a size as in 2GiB")
