"""Tells what a model file holds, without loading it: ``python -m veturboio.inspect FILE|DIR|URI``.

Exit status: 0 when it is told, 1 when it cannot be (with the reason on standard error), 2 for wrong usage, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from veturboio._arguments import FilePath, local_path, operator_path
from veturboio._cipher import read_header, time_of
from veturboio._commands import complain, run_command, say
from veturboio._errors import FileFormatError, TorchFileError, python_errors, readable
from veturboio._library import ops
from veturboio._load import load
from veturboio._models import Location
from veturboio._progress import progress_bar
from veturboio._shards import shard_files

_PIECE_BYTES = 64 << 20  # read by several threads


def main(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (None: the process's own) and returns its exit status."""
    options = _parser().parse_args(arguments)
    return run_command("inspect", lambda: _inspect(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m veturboio.inspect",
        description="Tells what a model holds: names, dtypes, shapes and sizes of its tensors, its metadata, whether it is "
        "encrypted. Only headers are read. An encrypted model needs its key, which is searched for as veturboio.load() does, and "
        "never shown.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE|DIR|URI", help="a file, or a directory or an index (*.index.json) of several")
    parser.add_argument("--json", action="store_true", help="print JSON: sizes in bytes, dtypes as the file has them")
    parser.add_argument(
        "--verify", action="store_true", help="also read every byte, in little memory, and say how many there are"
    )
    return parser


def _inspect(options: argparse.Namespace) -> None:
    report = describe(options.file, verify=options.verify)
    if options.json:
        say(json.dumps(report, indent=2))
    else:
        for line in _lines(report):
            say(line)


def describe(file: FilePath, *, verify: bool = False) -> dict[str, Any]:
    """What the command tells, for json.dumps(). `verify` reads every byte, and adds how many there are."""
    shards = shard_files(file)
    headers = [read_header(path) for path in ([file] if shards is None else shards.paths())]
    location = Location(file, True if any(headers) else None, None, None)
    try:
        models = location.open(None)
    except TorchFileError:
        kind, metadata, tensors = "torch", None, _tensors_of_torch_file(file, encrypted=any(headers))
    else:
        kind, metadata = "safetensors", models.metadata()
        tensors = [
            {"name": name, "dtype": dtype, "shape": shape, "bytes": _num_bytes(dtype, shape), "file": local_path(path)}
            for path, native, chosen in zip(location.paths, models.native, map(set, models.names_of_each()), strict=True)
            for name, dtype, shape in zip(*native.list_tensors(), strict=True)
            if name in chosen
        ]
    report: dict[str, Any] = {
        "model": location.title,
        "format": kind,
        "files": [
            _describe_file(path, header, cipher)
            for path, header, cipher in zip(location.paths, headers, location.ciphers, strict=True)
        ],
        "metadata": metadata,
        "tensors": tensors,
        "dtypes": _totals_by_dtype(tensors),
        "total": {"tensors": len(tensors), "bytes": sum(tensor["bytes"] for tensor in tensors)},
    }
    if verify:
        report["verified_bytes"] = _read_all(location)
    return report


def _describe_file(path: FilePath, header: dict[str, str], cipher: Any) -> dict[str, Any]:
    with python_errors():
        size = ops.file_size(operator_path(path))
    return {
        "file": local_path(path),
        "bytes": size,
        "encrypted": cipher is not None,
        "cipher_header": {"mode": header["mode"], "timestamp": time_of(header)} if header else None,
    }


def _num_bytes(dtype: str, shape: list[int]) -> int:
    """Of a tensor, whose dtype says how many bits an element has ("F8_E5M2")."""
    digits = re.search(r"\d+", dtype)
    bits = int(digits[0]) if digits else 8  # BOOL
    for size in shape:
        bits *= size
    return bits // 8


def _tensors_of_torch_file(file: FilePath, *, encrypted: bool) -> list[dict[str, Any]]:
    try:
        loaded = load(file, "meta", use_cipher=True if encrypted else None)
    except pickle.UnpicklingError:
        raise FileFormatError(
            f"{local_path(file)}: a file of torch.save that holds objects of other classes than PyTorch's own: making them "
            "would run its code, and nothing is told without",
            local_path(file),
        ) from None
    return [
        {
            "name": name,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "bytes": tensor.numel() * tensor.itemsize,
            "file": local_path(file),
        }
        for name, tensor in _tensors_in(loaded, "")
    ]


def _tensors_in(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """However deep, with the keys that lead to each."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors_in(inner, f"{name}.{key}" if name else str(key))


def _totals_by_dtype(tensors: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for tensor in tensors:
        total = totals.setdefault(tensor["dtype"], {"tensors": 0, "elements": 0, "bytes": 0})
        total["tensors"] += 1
        total["elements"] += torch.Size(tensor["shape"]).numel()
        total["bytes"] += tensor["bytes"]
    return dict(sorted(totals.items()))


def _read_all(location: Location) -> int:
    """Reads the files to their ends; returns how many bytes they have, less cipher headers."""
    with python_errors():
        readers = [
            torch.classes.veturbo.FileReader(operator_path(path), cipher)
            for path, cipher in zip(location.paths, location.ciphers, strict=True)
        ]
    total = sum(reader.size() for reader in readers)
    buffer = torch.empty(min(total, _PIECE_BYTES), dtype=torch.uint8)
    done = 0
    with progress_bar("reading") as report:
        for reader in readers:
            size = reader.size()
            for offset in range(0, size, _PIECE_BYTES):
                piece = buffer[: min(size - offset, _PIECE_BYTES)]
                with python_errors():
                    reader.read_into(piece, offset)
                done += len(piece)
                report(done, total)
            for warning in reader.warnings():
                complain("inspect", f"warning: {warning}")
    return done


def _lines(report: dict[str, Any]) -> Iterator[str]:
    for file in report["files"]:
        header = file["cipher_header"]
        state = f"encrypted, {header['mode']}, {header['timestamp']}" if header else "encrypted" if file["encrypted"] else "plain"
        yield f"{readable(file['file'])}: {report['format']}, {file['bytes']:,} bytes, {state}"
    yield ""
    rows = [
        (readable(tensor["name"]), tensor["dtype"], str(tensor["shape"]), f"{tensor['bytes']:,}") for tensor in report["tensors"]
    ]
    yield from _table(("tensor", "dtype", "shape", "bytes"), rows, texts=3)
    yield ""
    totals = [
        (dtype, f"{total['tensors']:,}", f"{total['elements']:,}", f"{total['bytes']:,}")
        for dtype, total in report["dtypes"].items()
    ]
    yield from _table(("dtype", "tensors", "elements", "bytes"), totals, texts=1)
    yield f"total: {report['total']['tensors']:,} tensors, {report['total']['bytes']:,} bytes"
    if report["metadata"]:
        yield ""
        yield "metadata:"
        yield from (f"  {readable(key)}: {readable(value)}" for key, value in sorted(report["metadata"].items()))
    if "verified_bytes" in report:
        yield ""
        # PyTorch checks less of a file of its own.
        structure = "the structure is right, and " if report["format"] == "safetensors" else ""
        yield f"verified: {structure}all {report['verified_bytes']:,} bytes can be read"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> Iterator[str]:
    """The first `texts` columns stand to the left, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        yield "  ".join(
            f"{cell:{'<' if i < texts else '>'}{width}}" for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )


if __name__ == "__main__":
    sys.exit(main())
