"""What encryption costs: the speed of the keystreams, and loads and saves of a model with and without it.

python bench/cipher_bench.py              # keystreams, then a model of 2.2 GB in shared memory
python bench/cipher_bench.py --keystream  # keystreams only

An encrypted load (save) is held against the plain one of the same run: it should take no longer than that and 1.2 times what the
threads need to make the keystream.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import veturboio
from measure import BenchError, compiled_with_core, exit_status, format_row, output
from model_files import llama

_HERE = Path(__file__).resolve().parent
_IV = bytes(16)
_SLACK = 1.2


def main() -> int:
    options = _parser().parse_args()
    return exit_status("cipher_bench", lambda: _bench(options))


def _bench(options: argparse.Namespace) -> None:
    speeds = _keystreams(options.repeat)
    report: dict[str, Any] = {"keystream": speeds}
    if not options.keystream:
        report |= _loads_and_saves(options, speeds)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measures what encryption costs. Figures are medians of measurements in turn.")
    add = parser.add_argument
    add("--keystream", action="store_true", help="measure the keystreams only")
    add("--base_dir", type=Path, default=Path("/dev/shm"), metavar="DIR", help="where the models are (default: %(default)s)")
    add("--repeat", type=int, default=5, metavar="N", help="measurements of each (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all measurements to this file as well")
    return parser


def _keystreams(repeat: int) -> dict[str, dict[str, list[float]]]:
    """GB/s on one core: implementation -> bits of the key -> measurements."""
    program = compiled_with_core(_HERE / "cipher.cpp", "base", "crypto")
    speeds: dict[str, dict[str, list[float]]] = json.loads(output([str(program), str(repeat)], "the keystreams failed"))
    widths = [16, 14, 14, 16]
    print(format_row(["implementation", "AES-128 GB/s", "AES-256 GB/s", "ratio to openssl"], widths))
    for name, of_keys in speeds.items():
        ratios = [statistics.median(of_keys[bits]) / statistics.median(speeds["openssl"][bits]) for bits in of_keys]
        cells = [f"{statistics.median(measured):.2f}" for measured in of_keys.values()]
        print(format_row([name, *cells, " ".join(f"{ratio:.2f}" for ratio in ratios)], widths))
    return speeds


def _loads_and_saves(options: argparse.Namespace, speeds: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    threads = _threads(options.base_dir)
    fastest = next(iter(speeds.values()))
    measured: dict[str, dict[int, list[float]]] = {}
    with _models(options.base_dir) as (nbytes, files):
        tensors = veturboio.load(files[0], **_cipher(0))
        expected = _checksum(tensors)
        target = options.base_dir / "veturboio_bench_cipher_saved"
        measured["load"] = _take_turns(options.repeat, lambda bits: _load(files[bits], bits, expected))
        measured["save"] = _take_turns(options.repeat, lambda bits: _save(tensors, target, bits, expected))
    widths = [10, 10, 12, 12, 10, 8, 8]
    print(f"\n{nbytes / 1e9:.1f} GB in {options.base_dir}, seconds to return")
    print(format_row(["action", "plain", "encrypted", "at most", "ratio", "key", "threads"], widths))
    for action, seconds in measured.items():
        plain = statistics.median(seconds[0])
        for bits in (128, 256):
            encrypted = statistics.median(seconds[bits])
            bound = plain + _SLACK * nbytes / (threads[action] * statistics.median(fastest[str(bits)]) * 1e9)
            cells = [f"{plain:.3f}", f"{encrypted:.3f}", f"{bound:.3f}", f"{encrypted / plain:.2f}", str(bits)]
            print(format_row([action, *cells, str(threads[action])], widths))
    return {"seconds": measured, "bytes": nbytes, "threads": threads}


def _take_turns(repeat: int, measure: Callable[[int], float]) -> dict[int, list[float]]:
    """By bits of the key. All in one process, and a first turn that does not count: where the host gives a virtual machine its
    memory when that is first touched, a process that begins with fresh memory measures the host.
    """
    measured: dict[int, list[float]] = {bits: [] for bits in (0, 128, 256)}
    for turn in range(repeat + 1):
        print(f"\r{turn}/{repeat}", end="", file=sys.stderr)
        for bits, seconds in measured.items():
            took = measure(bits)
            if turn > 0:
                seconds.append(took)
    print("\r", end="", file=sys.stderr)
    return measured


def _threads(folder: Path) -> dict[str, int]:
    """How many of them loads and saves use by default: into memory one writes, since two would fight over the page allocator."""
    cores = len(os.sched_getaffinity(0))
    kind = output(["stat", "--file-system", "--format=%T", str(folder)], "stat failed").strip()
    return {"load": cores, "save": 1 if kind == "tmpfs" else cores}


@contextmanager
def _models(folder: Path) -> Iterator[tuple[int, dict[int, Path]]]:
    """The same model plain (0) and encrypted, by bits of the key; removed afterwards."""
    model = llama()
    files = {bits: folder / f"veturboio_bench_cipher_{bits}.safetensors" for bits in (0, 128, 256)}
    try:
        tensors = model.tensors()
        for bits, file in files.items():
            veturboio.save_file(tensors, file, **_cipher(bits))
        del tensors
        yield model.nbytes, files
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)


def _cipher(bits: int, iv: bytes = _IV) -> dict[str, Any]:
    return {"key": bytes(range(bits // 8)), "iv": iv} if bits else {"use_cipher": False}


def _load(file: Path, bits: int, expected: list[int]) -> float:
    start = time.perf_counter()
    tensors = veturboio.load(file, **_cipher(bits))
    seconds = time.perf_counter() - start
    _check(tensors, expected)
    return seconds


def _save(tensors: dict[str, torch.Tensor], target: Path, bits: int, expected: list[int]) -> float:
    cipher = _cipher(bits, os.urandom(len(_IV)))  # one that has encrypted another file is warned of
    try:
        start = time.perf_counter()
        veturboio.save_file(tensors, target, **cipher)
        seconds = time.perf_counter() - start
        _check(veturboio.load(target, **cipher), expected)
        return seconds
    finally:
        target.unlink(missing_ok=True)


def _check(tensors: dict[str, torch.Tensor], expected: list[int]) -> None:
    if _checksum(tensors) != expected:
        raise BenchError("the loads and saves did not have the same bytes")


def _checksum(tensors: dict[str, torch.Tensor]) -> list[int]:
    return [int(tensors[name].view(-1).view(torch.int64).sum()) for name in sorted(tensors)]


if __name__ == "__main__":
    sys.exit(main())
