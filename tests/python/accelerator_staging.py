"""The staging memory of loads to a simulated accelerator, and of saves from it. Run by test_accelerator.py."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from accelerator_support import (
    CHUNK,
    MIB,
    assert_all_same,
    assert_same,
    in_thread,
    ops,
)
from fake_accelerator import FakeAccelerator

import veturboio


def test_staging_does_not_grow_with_the_file(tmp_path: Path, accelerator: FakeAccelerator, device: torch.device) -> None:
    path = str(tmp_path / "model.safetensors")
    peaks = []
    for num_chunks in (8, 24):
        veturboio.save_file({"tensor": torch.arange(num_chunks * CHUNK // 8)}, path)
        accelerator.reset_counters()
        loaded = ops.load_file(path, device, num_threads=2, use_direct_io=False)
        peaks.append(accelerator.counter("peak_pinned_bytes"))
        assert accelerator.counter("peak_bytes_in_flight") <= peaks[-1]
        assert_same(loaded["tensor"], torch.arange(num_chunks * CHUNK // 8))
    assert peaks == [4 * CHUNK, 4 * CHUNK]  # two slots a thread


def test_staging_is_at_most_256_mib_however_many_threads(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device
) -> None:
    expected = torch.arange(70 * CHUNK // 8)
    path = str(tmp_path / "model.safetensors")
    veturboio.save_file({"tensor": expected}, path)
    loaded = ops.load_file(path, device, num_threads=70, use_direct_io=False)
    assert_same(loaded["tensor"], expected)
    assert 128 * MIB < accelerator.counter("peak_pinned_bytes") <= 256 * MIB


def test_a_helper_grows_once_and_keeps_its_memory(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device, tmp_path: Path
) -> None:
    path, expected = model
    small = str(tmp_path / "small.safetensors")
    veturboio.save_file({"scalar": expected["scalar"]}, small)
    helper = veturboio.init_io_helper()
    assert helper.bytes() == 0
    veturboio.load(small, device, helper=helper, use_pinmem=True)
    assert helper.bytes() == accelerator.counter("pinned_bytes") > 0
    assert_all_same(veturboio.load(path, device, helper=helper, use_pinmem=True, num_thread=2), expected)
    held = helper.bytes()
    assert held > CHUNK
    for name in (path, small, path):
        veturboio.load(name, device, helper=helper, use_pinmem=True, num_thread=2)
        assert helper.bytes() == held
    # What it says is what is pinned: the small memory of the beginning is gone, and nothing else was pinned.
    assert accelerator.counter("pinned_bytes") == held
    helper.release()
    assert helper.bytes() == 0
    assert accelerator.counter("pinned_bytes") == 0
    assert_all_same(veturboio.load(path, device, helper=helper, use_pinmem=True), expected)


def test_a_helper_serves_saves_as_well(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device, tmp_path: Path
) -> None:
    path, expected = model
    helper = veturboio.init_io_helper()
    loaded = veturboio.load(path, device, helper=helper, use_pinmem=True)
    for _ in range(2):
        veturboio.save_file(loaded, str(tmp_path / "saved.safetensors"), helper=helper)
        assert helper.bytes() == accelerator.counter("pinned_bytes")
    assert_all_same(safetensors.torch.load_file(tmp_path / "saved.safetensors"), expected)


def test_a_helper_is_not_used_without_use_pinmem(model: tuple[str, dict[str, torch.Tensor]], device: torch.device) -> None:
    helper = veturboio.init_io_helper()
    assert_all_same(veturboio.load(model[0], device, helper=helper), model[1])
    assert helper.bytes() == 0


def test_threads_share_a_helper(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, devices: tuple[torch.device, ...]
) -> None:
    path, expected = model
    helper = veturboio.init_io_helper()

    def load(device: torch.device) -> list[dict[str, torch.Tensor]]:
        return [veturboio.load(path, device, helper=helper, use_pinmem=True, num_thread=2) for _ in range(3)]

    loads = [in_thread(lambda device=devices[i % 2]: load(device)) for i in range(4)]  # type: ignore[misc]
    for join in loads:
        for tensors in join():
            assert_all_same(tensors, expected)
    assert 0 < helper.bytes() == accelerator.counter("pinned_bytes")
    helper.release()
    assert accelerator.counter("pinned_bytes") == 0


def test_a_helper_that_is_released_during_a_load_gets_its_memory_back_after_it(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    path, expected = model
    helper = veturboio.init_io_helper()
    with accelerator.held_pool(device):
        job = ops.start_load(path, device, helper=helper.native)
        helper.release()
        assert helper.bytes() == accelerator.counter("pinned_bytes") > 0
    assert_all_same(job.result(), expected)
    del job
    assert helper.bytes() == 0
    assert accelerator.counter("pinned_bytes") == 0


def test_the_result_of_a_load_keeps_no_staging_memory(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    loaded = veturboio.load(model[0], device)
    assert accelerator.counter("pinned_blocks_lent") == 0
    assert_all_same(loaded, model[1])


def test_a_reader_keeps_its_staging_memory_until_it_is_closed(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    path, expected = model
    reader = veturboio.open(path, device)
    assert_all_same(reader.tensors(), expected)
    held = accelerator.counter("pinned_bytes")
    assert accelerator.counter("pinned_blocks_lent") > 0
    assert_all_same(reader.tensors(), expected)
    assert accelerator.counter("pinned_bytes") == held
    reader.close()
    assert accelerator.counter("pinned_blocks_lent") == 0
