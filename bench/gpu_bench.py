"""Loading to and saving from a CUDA GPU, held against what its link can do and beside the peers. Needs PyTorch and veturboio
only, and no network: peers are measured where they are installed beside these.

python bench/gpu_bench.py                 # a model of 2.2 GB in shared memory; a few minutes
python bench/gpu_bench.py --base_dir /tmp --repeat 3

The mark is a cudaMemcpy between pinned memory and the GPU, measured in the same turns, in one process that is warm. Peers are
compared by the first load of a process, as who starts a server has it. All bytes are compared. The tables come last.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import veturboio
from loaders import IV, LOADERS, Load, encryption_key
from measure import BenchError, Result, Step, exit_status, progress, take_turns
from model_files import Model, llama, single
from peer_environment import PEERS
from spare_memory import SpareMemory

_SLOT = 16 << 20  # of the copies by way of pinned memory
_SLOTS = 4
_DEVICE = "cuda:0"
_ONE_LOAD = Path(__file__).resolve().parent / "one_load.py"
_PEERS = ("veturboio", "veturboio AES-128", "instanttensor", "runai streamer", "fastsafetensors", "safetensors", "torch")


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
    return parser


def _bench(options: argparse.Namespace) -> None:
    model = single(options.gib) if options.gib else llama()
    with _files(model, options.base_dir) as files:
        reasons: dict[str, str] = {}
        seconds = _measure(_steps(model, files), options.repeat, reasons)
        torch.cuda.empty_cache()
        loads = [Load(mode, str(files[LOADERS[mode].suffix]), model.nbytes, map_location=_DEVICE) for mode in _PEERS]
        steps = [Step(load.mode, [sys.executable, str(_ONE_LOAD), json.dumps(asdict(load))]) for load in loads if _is_there(load)]
        failed = {load.mode: "not installed here" for load in loads if not _is_there(load)}
        first = take_turns(steps, options.repeat, SpareMemory(0), failed)
    if options.json:
        report = {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__, "bytes": model.nbytes, "seconds": seconds}
        of_first = {name: [timing.seconds for timing in result.timings] for name, result in first.items()}
        options.json.write_text(json.dumps(report | {"first_load": of_first, "not_measured": reasons | failed}, indent=2) + "\n")
    _print_table(model, seconds, reasons)
    _print_first_loads(model, first, failed)


def _measure(steps: dict[str, Callable[[], float]], repeat: int, reasons: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of each step by its name. Those that fail go to `reasons`."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-1, repeat):  # the first turn pins memory and compiles; it does not count
        for name, step in steps.items():
            if name in reasons:
                continue
            progress(f"{name} {turn + 1}/{repeat}")
            try:
                took = step()
            except (OSError, RuntimeError) as error:
                reasons[name] = str(error).splitlines()[0]
                _clear_error()
                continue
            if turn >= 0:
                seconds[name].append(took)
    progress("")
    return seconds


def _is_there(load: Load) -> bool:
    """Whether what loads so can be imported. Any release of a peer will do."""
    environment = LOADERS[load.mode].environment
    return environment is None or importlib.util.find_spec(PEERS[environment][1].partition(".")[0]) is not None


@contextmanager
def _files(model: Model, folder: Path) -> Iterator[dict[str, Path]]:
    """The model in all the files that are loaded, and what saves write, by suffix; all are removed afterwards."""
    files = {suffix: folder / f"veturboio_gpu_bench{suffix}" for suffix in (".safetensors", ".aes128", ".pt", ".saved")}
    try:
        tensors = model.tensors()
        veturboio.save_file(tensors, files[".safetensors"], use_cipher=False)
        veturboio.save_file(tensors, files[".aes128"], key=encryption_key(128), iv=IV)
        torch.save(tensors, files[".pt"])
        yield files
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)


def _steps(model: Model, files: dict[str, Path]) -> dict[str, Callable[[], float]]:
    """What takes turns: each does it once and gives the seconds that it took."""
    plain, encrypted, target = files[".safetensors"], files[".aes128"], files[".saved"]
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


def _print_table(model: Model, seconds: dict[str, list[float]], reasons: dict[str, str]) -> None:
    rate = {name: model.nbytes / statistics.median(took) / 1e9 for name, took in seconds.items() if took}
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


def _print_first_loads(model: Model, first: dict[str, Result], failed: dict[str, str]) -> None:
    print("\nThe first load of a process, in which CUDA is set up already.\n")
    print("| what | ms to return (least to most) | GB/s | of veturboio |")
    print("| --- | --- | --- | --- |")
    for name in sorted(first, key=lambda name: first[name].returned):
        took = [timing.seconds["returned"] * 1e3 for timing in first[name].timings]
        times = f"{statistics.median(took):.0f} ({min(took):.0f} to {max(took):.0f})"
        of_ours = f"{first[name].returned / first['veturboio'].returned:.2f}" if "veturboio" in first else ""
        print(f"| {name} | {times} | {model.nbytes / first[name].returned / 1e9:.1f} | {of_ours} |")
    for name, reason in failed.items():
        print(f"| {name} | not measured: {reason} | | |")


if __name__ == "__main__":
    sys.exit(main())
