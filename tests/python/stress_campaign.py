"""Loads and saves under stress: many threads and processes at once, interrupts, processes that end in the middle, repetition.

    python tests/python/stress_campaign.py --interrupts 200 --exits 90 --threads 64 --processes 16 --repeats 200

Prints what was done; 1 is the exit status if anything was not as it has to be.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import torch  # noqa: E402
from fault_operations import CIPHER, ViolationError  # noqa: E402
from fault_traces import Traces  # noqa: E402
from safetensors_files import write_zeros  # noqa: E402
from stress_children import run_exits, run_interrupts  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import veturboio  # noqa: E402

NUM_MODELS = 8
LARGE_BYTES = 1 << 30  # of zeros that take no room
# What a process may have more after many loads than after a few: what its allocators keep.
SETTLED_BYTES = 16 << 20


def elements(index: int) -> torch.Tensor:
    """Which can be told from those of every other model, by a process that may not run PyTorch's loops."""
    return torch.full((1_500_000 + index,), float(index))


def is_model(tensors: dict[str, torch.Tensor], index: int) -> bool:
    loaded = tensors["w"]
    wrong = loaded.numpy() != index
    return len(loaded) == 1_500_000 + index and not wrong.any()


def load_and_save(folder: Path, number: int) -> None:
    """What each thread or process does: one of the models, in one of the ways, and back into a file that others write, too."""
    index, draw = number % NUM_MODELS, random.Random(number)
    file = folder / f"model.{index}"
    way = draw.randrange(6)
    if way == 0:
        loaded = veturboio.load(file, mmap=True)
    elif way == 1:
        loaded = dict(veturboio.stream(file))
    elif way == 2:
        loaded = veturboio.load(folder / f"encrypted.{index}", **CIPHER)  # type: ignore[arg-type]
    elif way == 3:
        loaded = veturboio.load_async(file).result()
    else:
        loaded = veturboio.load(file, num_thread=1 + number % 3)
    if not is_model(loaded, index):
        raise ViolationError(f"load {number} has wrong bytes")
    shared = folder / f"shared.{index}"
    veturboio.save_file(loaded, shared)
    if not is_model(veturboio.load(shared), index):
        raise ViolationError(f"save {number} has wrong bytes")


def run_threads(folder: Path, count: int) -> None:
    """All at once, with one helper that goes away meanwhile; what they load, another thread frees."""
    helper = veturboio.init_io_helper()
    freed: list[dict[str, torch.Tensor]] = []
    ends = threading.Event()

    def free() -> None:
        while not ends.wait(0.001):
            freed[:] = []

    def work(number: int) -> None:
        load_and_save(folder, number)
        freed.append(veturboio.load(folder / f"model.{number % NUM_MODELS}", use_pinmem=True, helper=helper))
        if number % 4 == 0:
            helper.release()

    traces = Traces(folder)
    with ThreadPoolExecutor(1) as other, ThreadPoolExecutor(count) as pool:
        freeing = other.submit(free)
        try:
            list(pool.map(work, range(count)))
        finally:
            ends.set()
        freeing.result()
    freed.clear()
    traces.check()


def _in_child(folder: Path, number: int) -> None:
    torch.set_num_threads(1)
    load_and_save(folder, number)


class _Models(Dataset[int]):
    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> int:
        load_and_save(self._folder, number)
        return number


def run_processes(folder: Path, count: int, method: str) -> None:
    """All at once. Forked while another thread of this process loads."""
    context = multiprocessing.get_context(method)
    ends = threading.Event()

    def load() -> None:
        while not ends.is_set():
            veturboio.load(folder / "model.0")

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        try:
            children = [context.Process(target=_in_child, args=(folder, number)) for number in range(count)]
            for child in children:
                child.start()
            for child in children:
                child.join(300)
        finally:
            ends.set()
        loading.result()
    if codes := [child.exitcode for child in children if child.exitcode != 0]:
        raise ViolationError(f"{method}: processes ended with {codes}")


def run_data_loader(folder: Path, workers: int) -> None:
    """After a load in the parent."""
    veturboio.load(folder / "model.0")
    loader = DataLoader(_Models(folder, 4 * workers), num_workers=workers, multiprocessing_context="fork")
    if sorted(int(number) for number in loader) != list(range(4 * workers)):
        raise ViolationError("the workers of a DataLoader did not load all")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def count_mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def run_repeats(folder: Path, count: int) -> None:
    """Descriptors, threads, mappings and memory are afterwards what they were after the first of them."""
    file, encrypted = folder / "model.1", folder / "encrypted.1"

    def to_shmem() -> None:
        memory = veturboio.load_to_shmem(file)
        memory.close()
        memory.unlink()

    def read_in_parts() -> None:
        with veturboio.open(file) as model:
            model.slice("w")[5:70]

    def fail() -> None:
        try:
            veturboio.load(folder / "cut short")
        except veturboio.FileFormatError:
            return
        raise ViolationError("a file that is cut short was loaded")

    calls: list[Callable[[], object]] = [
        lambda: veturboio.load(file),
        lambda: veturboio.load(file, mmap=True),
        lambda: veturboio.load(file, use_direct_io=True),
        lambda: veturboio.load(encrypted, **CIPHER),  # type: ignore[arg-type]
        lambda: dict(veturboio.stream(file)),
        lambda: veturboio.load_async(file),  # given up at once
        lambda: veturboio.save_file({"w": elements(1)}, folder / "saved"),
        to_shmem,
        read_in_parts,
        fail,
    ]
    for call in calls * 3:
        call()
    gc.collect()
    traces, memory, mappings = Traces(folder), resident_bytes(), count_mappings()
    for _ in range(count):
        for call in calls:
            call()
    traces.check()
    if (more := resident_bytes() - memory) > SETTLED_BYTES:
        raise ViolationError(f"{more >> 20} MiB are left after {count} times {len(calls)} calls")
    if (more := count_mappings() - mappings) > len(calls):  # fewer than one for each round
        raise ViolationError(f"{more} mappings are left after {count} times {len(calls)} calls")


@contextmanager
def made_models() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="veturboio-stress-", dir="/dev/shm"))
    try:
        for index in range(NUM_MODELS):
            veturboio.save_file({"w": elements(index)}, folder / f"model.{index}")
            veturboio.save_file({"w": elements(index)}, folder / f"encrypted.{index}", use_cipher=True, **CIPHER)  # type: ignore[arg-type]
        (folder / "cut short").write_bytes((folder / "model.0").read_bytes()[:-1])
        veturboio.save_file({"w": torch.full((50,), 50.0)}, folder / "small")
        write_zeros(folder / "large", num_tensors=16, bytes_each=LARGE_BYTES // 16)
        yield folder
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interrupts", type=int, default=200)
    parser.add_argument("--exits", type=int, default=90)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--processes", type=int, default=16, help="forked; a quarter as many are spawned")
    parser.add_argument("--repeats", type=int, default=200, help="of each way to load and save")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    violations = 0
    warnings.simplefilter("ignore")  # of a key that encrypts several files
    with made_models() as folder:
        parts: list[tuple[str, Callable[[], object]]] = [
            (f"{options.repeats} repeats", lambda: run_repeats(folder, options.repeats)),
            (f"{options.threads} threads", lambda: run_threads(folder, options.threads)),
            (f"{options.processes} forked processes", lambda: run_processes(folder, options.processes, "fork")),
            (f"{options.processes // 4} spawned processes", lambda: run_processes(folder, options.processes // 4, "spawn")),
            ("2 workers of a DataLoader", lambda: run_data_loader(folder, 2)),
            (f"{options.exits} exits", lambda: run_exits(folder, options.seed, options.exits)),
            (f"{options.interrupts} interrupts", lambda: run_interrupts(folder, options.seed, options.interrupts)),
        ]
        for title, run in parts:
            began = time.monotonic()
            try:
                found = run()
            except ViolationError as violation:
                violations += 1
                print(f"VIOLATION {title}: {violation}", flush=True)
                continue
            answered = "" if found is None else f", answered after {found:.2f} s at the latest"
            print(f"  {title}: well{answered} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(parts)} parts, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
