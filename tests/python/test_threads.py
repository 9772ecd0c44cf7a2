"""Threads and processes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import veturboio


def num_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.fixture
def models(tmp_path):
    models = {}
    for i in range(8):
        tensors = {"a": torch.full((3_000_000 + i,), float(i)), "b": torch.arange(i)}
        veturboio.save_file(tensors, tmp_path / str(i))
        models[tmp_path / str(i)] = tensors
    return models


def test_many_threads_load_and_save_at_once_with_one_helper(models, tmp_path):
    helper = veturboio.init_io_helper()

    def copy(index: int) -> bool:
        file, tensors = list(models.items())[index % len(models)]
        loaded = veturboio.load(file, num_thread=1 + index % 3, helper=helper, use_pinmem=True)
        veturboio.save_file(loaded, tmp_path / f"copy{index}", helper=helper)
        again = veturboio.load(tmp_path / f"copy{index}")
        return all(torch.equal(again[name], tensor) for name, tensor in tensors.items())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(copy, range(32)))
    assert helper.bytes() == 0  # nothing was staged: all of it was on the CPU


def test_threads_live_no_longer_than_the_load(models):
    before = num_threads()
    for file in models:
        veturboio.load(file, num_thread=3)
        assert num_threads() == before


def test_a_small_file_starts_no_thread(tmp_path):
    veturboio.save_file({"a": torch.zeros(256)}, tmp_path / "small")
    before = num_threads()
    job = torch.ops.veturbo.start_load(str(tmp_path / "small"), num_threads=4)
    assert num_threads() == before
    assert job.wait(0.0)


def test_a_forked_process_loads_after_its_parent_has(models):
    for file in models:
        veturboio.load(file)
    child = os.fork()
    if child == 0:
        try:
            # Compared element by element: PyTorch's own parallel loops hang in a child of a process that has used them.
            good = all(veturboio.load(file)["a"][-1].item() == tensors["a"][-1].item() for file, tensors in models.items())
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
