"""Copies of a simulated accelerator that fail, and loads and saves that are given up. Run by test_accelerator.py."""

from __future__ import annotations

import _thread
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from accelerator_support import (
    CHUNK,
    FAILURE,
    WRITE_CHUNK,
    assert_all_same,
    content,
    in_thread,
    ops,
    wait_until,
)
from fake_accelerator import FakeAccelerator

import veturboio


@contextmanager
def fails(accelerator: FakeAccelerator, what: str, which: int) -> Iterator[None]:
    {"copy": accelerator.fail_copy, "event": accelerator.fail_event}[what](which)
    with pytest.raises(RuntimeError, match=FAILURE):
        yield


@pytest.mark.parametrize("num_threads", [1, 4])
@pytest.mark.parametrize("use_pinned_memory", [True, False])
@pytest.mark.parametrize(("what", "which"), [("copy", 1), ("copy", 3), ("event", 1), ("event", 2)])
def test_a_load_whose_copy_fails_raises_and_the_next_one_works(
    model: tuple[str, dict[str, torch.Tensor]],
    accelerator: FakeAccelerator,
    devices: tuple[torch.device, ...],
    what: str,
    which: int,
    use_pinned_memory: bool,
    num_threads: int,
) -> None:
    path, expected = model
    device = devices[1]
    accelerator.set_max_delay_us(20_000)  # other copies are still under way when this one has failed
    with fails(accelerator, what, which):
        ops.load_file(path, device, num_threads=num_threads, use_pinned_memory=use_pinned_memory)
    gc.collect()
    assert accelerator.counter("pinned_blocks_lent") == 0
    assert accelerator.counter("device_blocks_lent") == 0
    assert_all_same(ops.load_file(path, device, num_threads=num_threads, use_pinned_memory=use_pinned_memory), expected)


@pytest.mark.parametrize("what", ["copy", "event"])
def test_a_small_load_whose_copy_fails_raises(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device, what: str
) -> None:
    expected = {"tensor": content(1000)}
    path = str(tmp_path / "model.safetensors")
    veturboio.save_file(expected, path)
    accelerator.set_max_delay_us(20_000)
    with fails(accelerator, what, 1):
        veturboio.load(path, device)
    assert_all_same(veturboio.load(path, device), expected)


def test_a_helper_survives_a_load_that_fails(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    path, expected = model
    helper = veturboio.init_io_helper()
    accelerator.set_max_delay_us(20_000)
    with fails(accelerator, "event", 1):
        veturboio.load(path, device, helper=helper, use_pinmem=True, num_thread=4)
    assert_all_same(veturboio.load(path, device, helper=helper, use_pinmem=True, num_thread=4), expected)
    helper.release()
    assert helper.bytes() == 0


@pytest.mark.parametrize(("what", "which"), [("copy", 1), ("copy", 2), ("event", 1), ("event", 2)])
def test_a_save_whose_copy_fails_raises_and_leaves_the_old_file(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device, what: str, which: int
) -> None:
    tensors = {"tensor": content(3 * WRITE_CHUNK).to(device)}
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    accelerator.set_max_delay_us(20_000)
    with fails(accelerator, what, which):
        veturboio.save_file(tensors, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == b"old"
    assert accelerator.counter("pinned_blocks_lent") == 0
    veturboio.save_file(tensors, path)
    assert_all_same(safetensors.torch.load_file(path), {"tensor": content(3 * WRITE_CHUNK)})


def test_a_file_that_ends_too_early_frees_nothing_too_early(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device, tmp_path: Path
) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(Path(model[0]).read_bytes())
    with accelerator.held_pool(device):
        # The header is read and found right; then the file loses its end, and reading fails beside copies under way.
        job = ops.start_load(str(path), device, num_threads=1, use_direct_io=False)
        wait_until(lambda: accelerator.counter("bytes_in_flight") > CHUNK)  # two chunks, for as many slots: the third waits
        with path.open("r+b") as file:
            file.truncate(2 * CHUNK + 1000)
    with pytest.raises(RuntimeError, match=r"cut\.safetensors"):
        job.result()
    del job
    assert accelerator.counter("pinned_blocks_lent") == 0
    assert_all_same(veturboio.load(model[0], device), model[1])


def test_a_load_is_cancelled_in_the_middle(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    path, expected = model
    with accelerator.held_pool(device):
        job = ops.start_load(path, device, num_threads=2)
        wait_until(lambda: accelerator.counter("copies") > 0)
        job.cancel()
        assert not job.wait(0.05)  # the threads wait for the copies that they began
    with pytest.raises(RuntimeError, match="cancelled"):
        job.result()
    del job
    assert accelerator.counter("pinned_blocks_lent") == 0
    assert accelerator.counter("device_blocks_lent") == 0
    assert_all_same(veturboio.load(path, device), expected)


def test_a_load_is_dropped_in_the_middle(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    path, expected = model
    accelerator.hold_pool(device, held=True)
    job = ops.start_load(path, device, num_threads=2)
    wait_until(lambda: accelerator.counter("copies") > 0)
    accelerator.let_go_later(device, 200)
    del job  # waits, and must: its memory is in use
    assert accelerator.counter("pinned_blocks_lent") == 0
    assert accelerator.counter("device_blocks_lent") == 0
    assert_all_same(veturboio.load(path, device), expected)


def test_a_save_is_cancelled_in_the_middle(tmp_path: Path, accelerator: FakeAccelerator, device: torch.device) -> None:
    tensors = {"tensor": content(6 * WRITE_CHUNK).to(device)}
    path = tmp_path / "model.safetensors"
    with accelerator.held_pool(device):
        copies = accelerator.counter("copies")
        job = ops.start_save(tensors, str(path), num_threads=2)
        wait_until(lambda: accelerator.counter("copies") > copies)
        job.cancel()
        assert not job.wait(0.05)
    with pytest.raises(RuntimeError, match="cancelled"):
        job.result()
    del job
    assert list(tmp_path.iterdir()) == []
    assert accelerator.counter("pinned_blocks_lent") == 0


def test_ctrl_c_in_the_middle(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    path, expected = model

    def interrupt() -> None:
        wait_until(lambda: accelerator.counter("copies") > 0)
        _thread.interrupt_main()
        time.sleep(0.3)  # the load hears of it while its copies are still held
        accelerator.hold_pool(device, held=False)

    accelerator.hold_pool(device, held=True)
    interrupted = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        veturboio.load(path, device, num_thread=2)
    interrupted()
    gc.collect()
    assert accelerator.counter("pinned_blocks_lent") == 0
    assert accelerator.counter("device_blocks_lent") == 0
    assert_all_same(veturboio.load(path, device), expected)
