"""Loading to and saving from a CUDA GPU, held against what its link can do. Needs PyTorch and veturboio only, and no network.

python bench/gpu_bench.py                 # a model of 2.2 GB in shared memory; a few minutes
python bench/gpu_bench.py --base_dir /tmp --repeat 3

The mark is a cudaMemcpy between pinned memory and the GPU, measured in the same turns. The first load of a process is measured in
processes of their own; all else in one process, warm. Every load's bytes are compared with the model's. The table comes last.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

import veturboio
from loaders import IV, encryption_key
from measure import BenchError, exit_status, output, progress
from model_files import Model, llama, single

_SLOT = 16 << 20  # of the copies by way of pinned memory
_SLOTS = 4
_DEVICE = "cuda:0"


def main() -> int:
    options = _parser().parse_args()
    if not torch.cuda.is_available():
        print(f"gpu_bench: PyTorch {torch.__version__} finds no CUDA GPU on this machine: nothing is measured", file=sys.stderr)
        return 1
    return exit_status("gpu_bench", lambda: _bench(options), RuntimeError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measures loads to a CUDA GPU and saves from it. Figures are medians.")
    add = parser.add_argument
    add("--base_dir", type=Path, default=Path("/dev/shm"), metavar="DIR", help="where the model is (default: %(default)s)")
    add("--gib", type=float, metavar="GIB", help="one tensor of this size in place of a model of 2.2 GB in 201 tensors")
    add("--repeat", type=int, default=7, metavar="N", help="measurements of each (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all measurements to this file as well")
    add("--first_load", metavar="FILE", help=argparse.SUPPRESS)  # for the processes that this one starts
    return parser


def _bench(options: argparse.Namespace) -> None:
    if options.first_load:
        print(json.dumps(_first_load(options.first_load)))
        return
    model = single(options.gib) if options.gib else llama()
    with _files(model, options.base_dir) as (plain, encrypted, target):
        steps = _steps(model, plain, encrypted, target)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        reasons: dict[str, str] = {}
        for turn in range(-1, options.repeat):  # the first turn pins memory and compiles; it does not count
            for name, step in steps.items():
                if name in reasons:
                    continue
                progress(f"{name} {turn + 1}/{options.repeat}")
                try:
                    took = step()
                except (OSError, RuntimeError) as error:
                    reasons[name] = str(error).splitlines()[0]
                    _clear_error()
                    continue
                if turn >= 0:
                    seconds[name].append(took)
        first = _first_loads(plain, options.repeat)
    progress("")
    if options.json:
        report = {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__, "bytes": model.nbytes, "seconds": seconds}
        options.json.write_text(json.dumps(report | {"first_load": first, "not_measured": reasons}, indent=2) + "\n")
    _print_table(model, seconds, reasons, first)


@contextmanager
def _files(model: Model, folder: Path) -> Iterator[tuple[Path, Path, Path]]:
    """The model plain and encrypted, and the name of what saves write; all are removed afterwards."""
    files = tuple(folder / f"veturboio_gpu_bench_{what}.safetensors" for what in ("plain", "encrypted", "saved"))
    plain, encrypted, target = files
    try:
        tensors = model.tensors()
        veturboio.save_file(tensors, plain, use_cipher=False)
        veturboio.save_file(tensors, encrypted, key=encryption_key(128), iv=IV)
        yield plain, encrypted, target
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _steps(model: Model, plain: Path, encrypted: Path, target: Path) -> dict[str, Callable[[], float]]:
    """What takes turns: each does it once and gives the seconds that it took."""
    size = plain.stat().st_size
    on_gpu = torch.empty(size, dtype=torch.uint8, device=_DEVICE)
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    slots = [torch.empty(_SLOT, dtype=torch.uint8, pin_memory=True) for _ in range(_SLOTS)]
    expected = veturboio.load(plain)
    tensors = {name: tensor.to(_DEVICE) for name, tensor in expected.items()}
    helper = veturboio.init_io_helper()
    cipher: dict[str, Any] = {"key": encryption_key(128), "iv": IV}

    def load(file: Path, **arguments: Any) -> float:
        # The tensors' memory is new to every load, as it is to a process that loads one model.
        torch.cuda.empty_cache()
        seconds, loaded = _timed(lambda: veturboio.load(file, map_location=_DEVICE, **arguments))
        _check_same(loaded, tensors)
        return seconds

    def save(**arguments: Any) -> float:
        try:
            return _timed(lambda: veturboio.save_file(tensors, target, **arguments))[0]
        finally:
            target.unlink(missing_ok=True)

    return {
        "pinned memory to GPU": lambda: _timed(lambda: on_gpu.copy_(pinned, non_blocking=True))[0],
        "load": lambda: load(plain, use_cipher=False),
        "load, pinned memory kept": lambda: load(plain, use_cipher=False, helper=helper, use_pinmem=True),
        "load encrypted": lambda: load(encrypted, **cipher),
        "load encrypted, pinned memory kept": lambda: load(encrypted, helper=helper, use_pinmem=True, **cipher),
        "mapped file registered, then copied": lambda: _registered(plain, on_gpu),
        "mapped file by way of pinned slots": lambda: _by_slots(plain, on_gpu, slots),
        "decrypt on the GPU, AES-128": lambda: _decrypt(on_gpu, 128),
        "decrypt on the GPU, AES-256": lambda: _decrypt(on_gpu, 256),
        "GPU to pinned memory": lambda: _timed(lambda: pinned.copy_(on_gpu, non_blocking=True))[0],
        "save": lambda: save(use_cipher=False),
        "save encrypted": lambda: save(key=cipher["key"], iv=os.urandom(16)),  # never one for two files
    }


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    torch.cuda.synchronize()
    return time.perf_counter() - start, result


def _clear_error() -> None:
    """CUDA keeps the last error until somebody asks for it: the next kernel would fail for what is not its fault."""
    with suppress(RuntimeError):
        torch.zeros(1, device=_DEVICE)


def _check_same(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        if not torch.equal(loaded[name].view(torch.uint8), tensor.view(torch.uint8)):
            raise BenchError(f"tensor {name} has not the bytes that it should have")


def _decrypt(data: torch.Tensor, bits: int) -> float:
    key, iv = (torch.frombuffer(bytearray(value), dtype=torch.uint8) for value in (encryption_key(bits), IV))
    return _timed(lambda: torch.ops.veturbo.aes_ctr_decrypt_(data, key, iv))[0]


def _mapping(file: Path) -> torch.Tensor:
    """The file's pages in the page cache, as a tensor."""
    with file.open("r+b") as opened:
        return torch.frombuffer(mmap.mmap(opened.fileno(), 0), dtype=torch.uint8)


def _registered(file: Path, on_gpu: torch.Tensor) -> float:
    """Pins the file's own pages (cudaHostRegister) and copies from there: no copy on the CPU, but pinning costs."""
    cudart = torch.cuda.cudart()
    mapped = _mapping(file)

    def run() -> None:
        torch.cuda.check_error(cudart.cudaHostRegister(mapped.data_ptr(), mapped.nbytes, 0))
        try:
            on_gpu.copy_(mapped, non_blocking=True)
            torch.cuda.synchronize()
        finally:
            torch.cuda.check_error(cudart.cudaHostUnregister(mapped.data_ptr()))

    return _timed(run)[0]


def _by_slots(file: Path, on_gpu: torch.Tensor, slots: Sequence[torch.Tensor]) -> float:
    """One thread copies from the mapping into pinned slots in turn, each of which goes on to the GPU while the next is filled."""
    mapped = _mapping(file)

    def run() -> None:
        events = [torch.cuda.Event() for _ in slots]
        for count, first in enumerate(range(0, on_gpu.nbytes, _SLOT)):
            slot, event = slots[count % len(slots)], events[count % len(slots)]
            event.synchronize()  # what it held before has been copied
            size = min(_SLOT, on_gpu.nbytes - first)
            ctypes.memmove(slot.data_ptr(), mapped.data_ptr() + first, size)
            on_gpu[first : first + size].copy_(slot[:size], non_blocking=True)
            event.record()

    return _timed(run)[0]


def _first_loads(file: Path, repeat: int) -> list[dict[str, float]]:
    measured = []
    for turn in range(repeat):
        progress(f"first load of a process {turn + 1}/{repeat}")
        measured.append(json.loads(output([sys.executable, __file__, "--first_load", str(file)], "the first load failed")))
    return measured


def _first_load(file: str) -> dict[str, float]:
    """In this process, which has done nothing else: setting up CUDA, and then the first two loads."""
    start = time.perf_counter()
    torch.zeros(1, device=_DEVICE)
    torch.cuda.synchronize()
    cuda = time.perf_counter() - start
    first, loaded = _timed(lambda: veturboio.load(file, map_location=_DEVICE, use_cipher=False))
    del loaded
    second = _timed(lambda: veturboio.load(file, map_location=_DEVICE, use_cipher=False))[0]
    return {"CUDA": cuda, "first load": first, "second load": second}


def _print_table(model: Model, seconds: dict[str, list[float]], reasons: dict[str, str], first: list[dict[str, float]]) -> None:
    rate = {name: model.nbytes / statistics.median(took) / 1e9 for name, took in seconds.items() if took}
    median = {name: statistics.median(turn[name] for turn in first) for name in first[0]}
    size = f"{model.nbytes / 1e9:.1f} GB in {len(model.shapes)} tensors"
    print(f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, {size}.")
    print("Medians; the mark is the copy between pinned memory and the GPU in the same direction.\n")
    print("| what | ms (least to most) | GB/s | of the mark | of the plain one |")
    print("| --- | --- | --- | --- | --- |")
    for name, took in seconds.items():
        if name in reasons:
            print(f"| {name} | not measured: {reasons[name]} | | | |")
            continue
        saves = name.startswith("save") or name == "GPU to pinned memory"
        mark = rate.get("GPU to pinned memory" if saves else "pinned memory to GPU")
        of_mark = f"{rate[name] / mark:.2f}" if mark and "decrypt" not in name else ""
        plain = rate.get(name.replace(" encrypted", "")) if " encrypted" in name else None
        of_plain = f"{rate[name] / plain:.2f}" if plain else ""
        times = f"{statistics.median(took) * 1e3:.0f} ({min(took) * 1e3:.0f} to {max(took) * 1e3:.0f})"
        print(f"| {name} | {times} | {rate[name]:.1f} | {of_mark} | {of_plain} |")
    listed = ", ".join(f"{name} {took * 1e3:.0f} ms" for name, took in median.items())
    print(f"| in a new process | {listed} | {model.nbytes / median['first load'] / 1e9:.1f} (first load) | | |")


if __name__ == "__main__":
    sys.exit(main())
