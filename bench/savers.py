"""The savers and converters that the bench compares, as loaders.py has the loaders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loaders import IV, Tensors, encryption_key


@dataclass(frozen=True)
class Saver:
    """How tensors are saved. `start` imports what that needs and returns the call that is to be timed: it takes the tensors and
    the new file's path.
    """

    start: Callable[[], Callable[[Tensors, str], None]]
    reader: str  # of loaders.LOADERS: what reads the file back, to check it
    environment: str | None = None


@dataclass(frozen=True)
class Converter:
    """How a file of torch.save becomes a safetensors file; the call takes both paths."""

    start: Callable[[], Callable[[str, str], None]]
    environment: str | None = None


def _veturboio(**arguments: Any) -> Callable[[], Callable[[Tensors, str], None]]:
    def start() -> Callable[[Tensors, str], None]:
        import veturboio

        return lambda tensors, file: veturboio.save_file(dict(tensors), file, **arguments)

    return start


def _veturboio_pt() -> Callable[[Tensors, str], None]:
    import veturboio

    return lambda tensors, file: veturboio.save_pt(dict(tensors), file)


def _torch() -> Callable[[Tensors, str], None]:
    import torch

    return lambda tensors, file: torch.save(dict(tensors), file)


def _safetensors() -> Callable[[Tensors, str], None]:
    from safetensors.torch import save_file

    return lambda tensors, file: save_file(dict(tensors), file)


def _tensorizer() -> Callable[[Tensors, str], None]:
    from tensorizer import TensorSerializer

    def run(tensors: Tensors, file: str) -> None:
        serializer = TensorSerializer(file)
        serializer.write_state_dict(tensors)
        serializer.close()

    return run


def _convert() -> Callable[[str, str], None]:
    from veturboio import convert

    def run(source: str, target: str) -> None:
        status = convert.main(["-i", source, "-o", target])
        if status != 0:
            raise SystemExit(status)  # it has said why

    return run


def _load_and_save_file() -> Callable[[str, str], None]:
    import torch
    from safetensors.torch import save_file

    return lambda source, target: save_file(torch.load(source, weights_only=True), target)


SAVERS = {
    "veturboio": Saver(_veturboio(), "veturboio"),
    "veturboio AES-128": Saver(_veturboio(key=encryption_key(128), iv=IV), "veturboio AES-128"),
    "veturboio AES-256": Saver(_veturboio(key=encryption_key(256), iv=IV), "veturboio AES-256"),
    "veturboio .pt": Saver(_veturboio_pt, "torch"),
    "torch": Saver(_torch, "torch"),
    "safetensors 0.8": Saver(_safetensors, "veturboio", "safetensors 0.8"),
    "safetensors 0.9": Saver(_safetensors, "veturboio", "safetensors 0.9"),
    "tensorizer": Saver(_tensorizer, "tensorizer", "tensorizer"),
}

CONVERTERS = {
    "veturboio": Converter(_convert),
    "torch + safetensors 0.8": Converter(_load_and_save_file, "safetensors 0.8"),
    "torch + safetensors 0.9": Converter(_load_and_save_file, "safetensors 0.9"),
}
