"""The models that the bench loads: random bits, written once as a safetensors file and once as a file of torch.save."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

import veturboio
from loaders import data_file
from measure import BenchError
from veturboio._files import exists, is_local

_PAGE = 4096


@dataclass(frozen=True)
class Model:
    """Names and shapes of tensors, all of one dtype, each of whole 64-bit words (on accelerators, of whole pages)."""

    name: str
    dtype: torch.dtype
    shapes: dict[str, tuple[int, ...]]

    @property
    def nbytes(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values()) * self.dtype.itemsize

    def files(self, folder: str) -> list[str]:
        """Where write() puts the model. Only our own loader reads what is not a local file."""
        modes = ("veturboio", "torch") if is_local(folder) else ("veturboio",)
        return [data_file(f"{folder}/{self.name}", mode) for mode in modes]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Tensors of any bits at all, NaNs among them: they are only moved."""
        tensors = {name: torch.empty(shape, dtype=self.dtype) for name, shape in self.shapes.items()}
        for tensor in tensors.values():
            tensor.view(-1).view(torch.int64).random_()
        return tensors

    def write(self, folder: str) -> None:
        """Writes the files."""
        if is_local(folder) and shutil.disk_usage(folder).free < 2 * self.nbytes:
            raise BenchError(f"{folder} has no room for two files of {self.nbytes / 2**30:.1f} GiB: choose another --base_dir")
        tensors = self.tensors()
        for_safetensors, *for_torch = self.files(folder)
        veturboio.save_file(tensors, for_safetensors)
        for file in for_torch:
            torch.save(tensors, file)

    @contextmanager
    def written(self, folder: str) -> Iterator[None]:
        """Has the files in the folder; removes them afterwards, unless they were there before or are far away."""
        if all(exists(file) for file in self.files(folder)):
            yield
            return
        try:
            self.write(folder)
            yield
        finally:
            for file in self.files(folder):
                if is_local(file):
                    Path(file).unlink(missing_ok=True)


def single(gib: float) -> Model:
    """One float32 tensor."""
    pages = max(round(gib * 2**30 / _PAGE), 1)
    return Model(f"veturboio_bench_{gib:g}GiB", torch.float32, {"tensor": (pages * _PAGE // 4,)})


def llama() -> Model:
    """2.2 GB of bfloat16 in 201 tensors, with the shapes of TinyLlama-1.1B: large, small and tiny ones, as models have them."""
    hidden, intermediate, kv, vocabulary, layers = 2048, 5632, 256, 32000, 22
    of_layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    return Model("veturboio_bench_llama", torch.bfloat16, shapes)


def small() -> Model:
    """20,000 bfloat16 tensors of 1 to 64 KiB, always the same ones: about 0.66 GB in all."""
    sizes = random.Random(20000)
    shapes: dict[str, tuple[int, ...]] = {
        f"tensor.{i:05}": (sizes.randrange(1 << 10, (64 << 10) + 8, 8) // 2,) for i in range(20_000)
    }
    return Model("veturboio_bench_small", torch.bfloat16, shapes)


def tiny() -> Model:
    """One tensor of 64 KiB."""
    return Model("veturboio_bench_tiny", torch.float32, {"tensor": (16 << 10,)})
