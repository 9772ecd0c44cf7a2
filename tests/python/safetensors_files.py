"""Safetensors files built by hand, without the library that is tested and without the reference."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any


def with_header(header: bytes | str | dict[str, Any], data: bytes = b"") -> bytes:
    """A file with this header, which need be neither padded nor valid."""
    if isinstance(header, dict):
        header = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def split(file: bytes) -> tuple[str, bytes]:
    """A file's header, with its padding, and its data."""
    (length,) = struct.unpack("<Q", file[:8])
    return file[8 : 8 + length].decode(), file[8 + length :]


def header_of(path: Path) -> dict[str, Any]:
    return json.loads(split(path.read_bytes())[0])


def write_zeros(path: Path, num_tensors: int, bytes_each: int) -> None:
    """A model of uint8 zeros that takes no room where it lies: its data are a hole in the file."""
    header = {f"layer.{i}": entry("U8", [bytes_each], i * bytes_each, (i + 1) * bytes_each) for i in range(num_tensors)}
    with path.open("wb") as file:
        file.write(with_header(header))
        file.truncate(file.tell() + num_tensors * bytes_each)
