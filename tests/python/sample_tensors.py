"""Tensors to save and load, of every dtype that the format and PyTorch share."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

#: PyTorch's dtypes and the format's names for them, in the order in which a writer sorts.
FORMAT_NAMES = {
    torch.bool: "BOOL",
    torch.float4_e2m1fn_x2: "F4",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
DTYPES = list(FORMAT_NAMES)


def sample(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """A tensor of random bits: NaNs with payloads, infinities and denormals are among them."""
    count = math.prod(shape) * dtype.itemsize
    bits = torch.randint(0, 2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8, generator=seeded(seed))
    return bits.view(dtype).reshape(shape)


def one_of_each(*shape: int) -> dict[str, torch.Tensor]:
    return {str(dtype).removeprefix("torch."): sample(dtype, *shape, seed=i) for i, dtype in enumerate(DTYPES)}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(tensor: torch.Tensor) -> bytes:
    """The tensor's elements, byte for byte: NaNs compare equal to themselves here, and some dtypes have no comparison."""
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """The same names, dtypes and shapes, and the same bits."""
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert bits(found[name]) == bits(tensor), name
