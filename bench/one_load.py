"""Loads one file in one way, as the only thing this process does, and prints how long that took as JSON. For measure.py.

    python one_load.py '{"mode": "veturboio", "file": "model.safetensors", ...}'    (the fields of measure.Load)

Not part of the time: starting Python, imports, setting up the device and its kernels, and touching memory
(see touch_fresh_memory).

Touching the tensors means that all cores read all of their bytes, as the first pass of a model over its weights does; it brings
in whatever a loader has only mapped. The sums that this makes become a checksum: over the tensors one after another, sorted by
name, the sum over all 4 KiB pages of (1 + index of the page) * (sum of its 64-bit words), modulo 2^64. A byte that differs or a
page that is not in its place changes it. Tensors must be whole pages; those of the bench are.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import torch

from measure import OWN_MODES, Load, Timing, touch_fresh_memory

_WORDS_PER_PAGE = 4096 // 8
_PAGES_PER_PIECE = 1024  # 4 MiB: limit.cpp's chunk

Tensors = Mapping[str, torch.Tensor]


def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    device = torch.device(load.map_location)
    cores = _start_threads(len(os.sched_getaffinity(0)))
    _page_sums({"": torch.zeros(1 << 20, dtype=torch.int64, device=device)}, cores)  # sets up the device and its kernels
    run = _loader(load)
    _synchronize(device)
    touch_fresh_memory(load.nbytes)

    start = time.perf_counter()
    tensors = run()
    _synchronize(device)
    returned = time.perf_counter() - start
    sums = _page_sums(tensors, cores)
    _synchronize(device)
    touched = time.perf_counter() - start
    print(json.dumps(asdict(Timing(returned, touched, _checksum(sums)))))


def _loader(load: Load) -> Callable[[], Tensors]:
    """Imports what the mode needs and returns what is to be timed."""
    if load.mode == "torch":
        return lambda: torch.load(load.file, map_location=load.map_location, weights_only=True)
    if load.mode == "safetensors":
        from safetensors.torch import load_file

        return lambda: load_file(load.file, device=load.map_location)
    if load.mode in OWN_MODES:
        return _veturboio_loader(load)
    raise SystemExit(f"unknown load mode: {load.mode}")


def _veturboio_loader(load: Load) -> Callable[[], Tensors]:
    import veturboio

    helper = veturboio.init_io_helper() if load.use_pinmem else None

    def run() -> Tensors:
        return veturboio.load(
            load.file,
            map_location=load.map_location,
            num_thread=1 if load.mode == "one_reader" else load.num_thread,
            helper=helper,
            use_pinmem=load.use_pinmem,
            use_direct_io=load.use_direct_io,
        )

    if load.use_pinmem and load.map_location != "cpu":
        run()  # a helper is for loads after the first: this one pins its memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # but the memory of the tensors is new to every loader
    return run


def _start_threads(count: int) -> ThreadPoolExecutor:
    """One thread a core. PyTorch's own threads wait for each other after every sum; on a machine that has other work to do as
    well that takes ten times as long, and says nothing of the loader."""
    threads = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    all_started = threading.Barrier(count)
    list(threads.map(lambda _: all_started.wait(), range(count)))
    return threads


def _page_sums(tensors: Tensors, cores: ThreadPoolExecutor) -> list[torch.Tensor]:
    pages = (tensors[name].reshape(-1).view(torch.int64).view(-1, _WORDS_PER_PAGE) for name in sorted(tensors))
    pieces = (piece for of_tensor in pages for piece in of_tensor.split(_PAGES_PER_PIECE))
    return list(cores.map(lambda piece: piece.sum(dim=1), pieces))


def _checksum(sums: list[torch.Tensor]) -> int:
    of_pages = torch.cat(sums).cpu()
    total = int((of_pages * torch.arange(1, len(of_pages) + 1)).sum())
    return total % (1 << 64)  # PyTorch's integers wrap around with a sign, those of limit.cpp without


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    main()
