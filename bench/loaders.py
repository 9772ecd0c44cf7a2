"""The loaders that the bench compares: what each reads, what it returns, and how it is called.

This module is imported by the process that measures and by the ones that it starts, each of which imports one loader; so nothing
is imported here that a loader might not want.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]

OWNED = "owned"  # memory that nobody else has, each tensor a storage of its own
SHARED = "one buffer"  # memory that is the tensors' own, but one storage, or a few, for all of them: all live as long as one
MAPPED = "mapped"  # pages of the file
IV = bytes(range(16))


@dataclass(frozen=True)
class Load:
    """One load of one file, whose tensors have `nbytes`. `mode` is one of LOADERS, or LIMIT; the other fields are
    veturboio.load's arguments."""

    mode: str
    file: str
    nbytes: int
    map_location: str = "cpu"
    num_thread: int | None = None
    use_pinmem: bool = False
    use_direct_io: bool | None = None


@dataclass(frozen=True)
class Loader:
    """How a file is loaded. `start` imports what that needs and returns the load that is to be timed."""

    start: Callable[[Load], Callable[[], Tensors]]
    result: str  # OWNED, SHARED or MAPPED
    suffix: str = ".safetensors"  # of the file that it takes
    environment: str | None = None  # one of peer_environment.PEERS; None is ours, with PyTorch and safetensors as it has them


def data_file(stem: str, mode: str) -> str:
    """The file that a mode loads, of those that hold the same model."""
    return stem + (LOADERS[mode].suffix if mode in LOADERS else ".safetensors")


def encryption_key(bits: int) -> bytes:
    return bytes(range(bits // 8))


def _veturboio(**arguments: Any) -> Callable[[Load], Callable[[], Tensors]]:
    def start(load: Load) -> Callable[[], Tensors]:
        import torch

        import veturboio

        helper = veturboio.init_io_helper() if load.use_pinmem else None
        options = {
            "num_thread": load.num_thread,
            "helper": helper,
            "use_pinmem": load.use_pinmem,
            "use_direct_io": load.use_direct_io,
            **arguments,
        }

        def run() -> Tensors:
            return veturboio.load(load.file, map_location=load.map_location, **options)

        if load.use_pinmem and load.map_location != "cpu":
            run()  # a helper is for loads after the first: this one pins its memory
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # but the memory of the tensors is new to every loader
        return run

    return start


def _torch(load: Load) -> Callable[[], Tensors]:
    import torch

    return lambda: torch.load(load.file, map_location=load.map_location, weights_only=True)


def _torch_mmap(load: Load) -> Callable[[], Tensors]:
    import torch

    return lambda: torch.load(load.file, map_location=load.map_location, weights_only=True, mmap=True)


def _safetensors(load: Load) -> Callable[[], Tensors]:
    from safetensors.torch import load_file

    return lambda: load_file(load.file, device=load.map_location)


def _safetensors_pread(load: Load) -> Callable[[], Tensors]:
    from safetensors.torch import load_file

    backend: Any = {"backend": "pread"}  # since 0.9
    return lambda: load_file(load.file, device=load.map_location, **backend)


def _safetensors_clone(load: Load) -> Callable[[], Tensors]:
    """What people do who want memory of their own from a mapping."""
    from safetensors.torch import load_file

    return lambda: {name: tensor.clone() for name, tensor in load_file(load.file).items()}


def _safe_open(package: str) -> Callable[[Load], Callable[[], Tensors]]:
    """One tensor after the other, as transformers and others load."""

    def start(load: Load) -> Callable[[], Tensors]:
        safe_open = importlib.import_module(package).safe_open

        def run() -> Tensors:
            with safe_open(load.file, "pt", device=load.map_location) as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict

        return run

    return start


def _drop_in(load: Load) -> Callable[[], Tensors]:
    from veturboio.safetensors.torch import load_file

    return lambda: load_file(load.file, device=load.map_location)


def _fastsafetensors(load: Load) -> Callable[[], Tensors]:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    def run() -> Tensors:
        loader = SafeTensorsFileLoader(SingleGroup(), device=load.map_location, nogds=True)
        loader.add_filenames({0: [load.file]})
        buffer = loader.copy_files_to_device()
        tensors = {name: buffer.get_tensor(name) for name in loader.get_keys()}
        buffer.close()  # the tensors keep the memory
        loader.close()
        return tensors

    return run


def _runai(load: Load) -> Callable[[], Tensors]:
    from runai_model_streamer import SafetensorsStreamer

    def run() -> Tensors:
        with SafetensorsStreamer() as streamer:
            streamer.stream_file(load.file, device=load.map_location)
            return dict(streamer.get_tensors())

    return run


def _instanttensor(load: Load) -> Callable[[], Tensors]:
    from instanttensor import safe_open

    def run() -> Tensors:
        with safe_open(load.file, framework="pt", device=load.map_location) as file:
            return dict(file.tensors())  # copies, out of a buffer that is used again

    return run


def _tensorizer(load: Load) -> Callable[[], Tensors]:
    from tensorizer import TensorDeserializer

    def run() -> Tensors:
        with TensorDeserializer(load.file, device=load.map_location) as file:
            return {name: parameter.detach() for name, parameter in file.items()}

    return run


LIMIT = "limit"  # no loader but bench/limit.cpp

LOADERS = {
    "veturboio": Loader(_veturboio(), OWNED),
    "one_reader": Loader(_veturboio(num_thread=1), OWNED),
    "veturboio mmap": Loader(_veturboio(mmap=True), MAPPED),
    "veturboio AES-128": Loader(_veturboio(key=encryption_key(128), iv=IV), OWNED, ".aes128"),
    "veturboio AES-256": Loader(_veturboio(key=encryption_key(256), iv=IV), OWNED, ".aes256"),
    "drop-in safe_open": Loader(_safe_open("veturboio.safetensors"), MAPPED),
    "drop-in load_file": Loader(_drop_in, MAPPED),
    "veturboio .pt": Loader(_veturboio(), OWNED, ".pt"),
    "torch": Loader(_torch, OWNED, ".pt"),
    "torch mmap": Loader(_torch_mmap, MAPPED, ".pt"),
    "safetensors": Loader(_safetensors, MAPPED),
    "safetensors 0.8 mmap": Loader(_safetensors, MAPPED, environment="safetensors 0.8"),
    "safetensors 0.8 clone": Loader(_safetensors_clone, OWNED, environment="safetensors 0.8"),
    "safetensors 0.8 safe_open": Loader(_safe_open("safetensors"), MAPPED, environment="safetensors 0.8"),
    "safetensors 0.9 safe_open": Loader(_safe_open("safetensors"), MAPPED, environment="safetensors 0.9"),
    "safetensors 0.9 mmap": Loader(_safetensors, MAPPED, environment="safetensors 0.9"),
    "safetensors 0.9 clone": Loader(_safetensors_clone, OWNED, environment="safetensors 0.9"),
    "safetensors 0.9 pread": Loader(_safetensors_pread, OWNED, environment="safetensors 0.9"),
    "fastsafetensors": Loader(_fastsafetensors, SHARED, environment="fastsafetensors"),
    "runai streamer": Loader(_runai, SHARED, environment="runai streamer"),
    "instanttensor": Loader(_instanttensor, OWNED, environment="instanttensor"),  # loads to GPUs alone
    "tensorizer": Loader(_tensorizer, OWNED, ".tensors", environment="tensorizer"),
}

# Those of io_bench.py, which compares our loader with what its users have; and of these, what reads from every storage.
LOAD_MODES = ("veturboio", "one_reader", "torch", "safetensors", LIMIT)
OWN_MODES = ("veturboio", "one_reader")
