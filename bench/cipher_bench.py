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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import veturboio
from measure import BenchError, compiled_with_core, exit_status, format_row, output, touch_fresh_memory
from model_files import llama

_HERE = Path(__file__).resolve().parent
_IV = bytes(16)
_SLACK = 1.2


def main() -> int:
    options = _parser().parse_args()
    return exit_status("cipher_bench", lambda: _bench(options))


def _bench(options: argparse.Namespace) -> None:
    if options.step:
        print(json.dumps(_run_step(**json.loads(options.step))))
        return
    speeds = _keystreams(options.repeat)
    report: dict[str, Any] = {"keystream": speeds}
    if not options.keystream:
        report |= _loads_and_saves(options, speeds)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measures what encryption costs. Figures are medians of interleaved runs.")
    add = parser.add_argument
    add("--keystream", action="store_true", help="measure the keystreams only")
    add("--base_dir", type=Path, default=Path("/dev/shm"), metavar="DIR", help="where the models are (default: %(default)s)")
    add("--repeat", type=int, default=5, metavar="N", help="measurements of each (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all measurements to this file as well")
    add("--step", help=argparse.SUPPRESS)  # for the processes that this one starts
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
    measured: dict[str, list[float]] = {}
    checksums = set()
    with _models(options.base_dir) as (nbytes, files):
        target = options.base_dir / "veturboio_bench_cipher_saved"
        for turn in range(options.repeat):
            for action in ("load", "save"):
                for bits, file in files.items():
                    step = {"action": action, "bits": bits, "source": str(file), "target": str(target)}
                    done = json.loads(output([sys.executable, __file__, "--step", json.dumps(step)], f"{action} failed"))
                    target.unlink(missing_ok=True)
                    measured.setdefault(f"{action} {bits}", []).append(done["seconds"])
                    checksums.add(done["checksum"])
            print(f"\r{turn + 1}/{options.repeat}", end="", file=sys.stderr)
    print("\r", end="", file=sys.stderr)
    if len(checksums) > 1:
        raise BenchError("the loads and saves did not have the same bytes")
    widths = [10, 10, 12, 12, 10, 8, 8]
    print(f"\n{nbytes / 1e9:.1f} GB in {options.base_dir}, seconds to return")
    print(format_row(["action", "plain", "encrypted", "at most", "ratio", "key", "threads"], widths))
    for action in ("load", "save"):
        plain = statistics.median(measured[f"{action} 0"])
        for bits in (128, 256):
            encrypted = statistics.median(measured[f"{action} {bits}"])
            bound = plain + _SLACK * nbytes / (threads[action] * statistics.median(fastest[str(bits)]) * 1e9)
            cells = [f"{plain:.3f}", f"{encrypted:.3f}", f"{bound:.3f}", f"{encrypted / plain:.2f}", str(bits)]
            print(format_row([action, *cells, str(threads[action])], widths))
    return {"seconds": measured, "bytes": nbytes, "threads": threads}


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


def _cipher(bits: int) -> dict[str, Any]:
    return {"key": bytes(range(bits // 8)), "iv": _IV} if bits else {"use_cipher": False}


def _run_step(action: str, bits: int, source: str, target: str) -> dict[str, Any]:
    """One load or save, as the only thing this process does: its seconds, and a checksum of what was loaded, or saved."""
    tensors: dict[str, torch.Tensor] = {}
    if action == "save":
        tensors = veturboio.load(source, **_cipher(bits))
    touch_fresh_memory(Path(source).stat().st_size)
    start = time.perf_counter()
    if action == "save":
        veturboio.save_file(tensors, target, **_cipher(bits))
    else:
        tensors = veturboio.load(source, **_cipher(bits))
    seconds = time.perf_counter() - start
    if action == "save":
        tensors = veturboio.load(target, **_cipher(bits))
    sums = [int(tensors[name].view(-1).view(torch.int64).sum()) for name in sorted(tensors)]
    return {"seconds": seconds, "checksum": hash(tuple(sums))}


if __name__ == "__main__":
    sys.exit(main())
