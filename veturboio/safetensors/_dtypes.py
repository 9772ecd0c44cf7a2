"""The dtypes of the format: its words for them, PyTorch's dtypes, and how many bits an element has."""

from __future__ import annotations

import torch

#: By their names in PyTorch, which are NumPy's too where it has them, in the order in which safetensors lists them.
FORMAT_NAMES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "float4_e2m1fn_x2": "F4",
    "complex64": "C64",
}

TORCH_DTYPES: dict[str, torch.dtype] = {word: getattr(torch, name) for name, word in FORMAT_NAMES.items()}

#: Two elements of it share a byte, which is one of PyTorch's elements.
PACKED = "F4"


def element_bits(word: str) -> int:
    return 4 if word == PACKED else 8 * TORCH_DTYPES[word].itemsize
