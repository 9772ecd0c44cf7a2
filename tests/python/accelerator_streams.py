"""The order of things on the streams of a simulated accelerator. Run by test_accelerator.py."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from accelerator_support import (
    WRITE_CHUNK,
    assert_all_same,
    content,
    ops,
)
from fake_accelerator import FakeAccelerator


def test_a_load_comes_behind_what_the_current_stream_does_with_its_memory(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    # The allocator hands out memory that earlier work of the stream is still to write to.
    path, expected = model
    stream = torch.Stream(device=device)
    with accelerator.held(stream):
        with stream:
            job = ops.start_load(path, device)
        assert not job.wait(0.2)
    assert_all_same(job.result(), expected)


def test_a_load_in_place_comes_behind_what_the_current_stream_does_with_the_tensors(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    path, expected = model
    targets = {name: torch.zeros_like(tensor, device=device) for name, tensor in expected.items()}
    wrong = {name: torch.zeros_like(tensor).pin_memory() for name, tensor in expected.items()}
    stream = torch.Stream(device=device)
    with accelerator.held(stream):
        with stream:
            for name, target in targets.items():
                target.copy_(wrong[name], non_blocking=True)
            job = ops.start_load_(targets, path)
        assert not job.wait(0.2)
    job.result()
    assert_all_same(targets, expected)
    stream.synchronize()


def test_a_save_comes_behind_the_work_that_makes_its_tensors(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device
) -> None:
    host = content(3 * WRITE_CHUNK).pin_memory()
    path = str(tmp_path / "model.safetensors")
    stream = torch.Stream(device=device)
    with accelerator.held(stream):
        with stream:
            tensor = host.to(device, non_blocking=True)
            job = ops.start_save({"tensor": tensor}, path, num_threads=2)
        assert not job.wait(0.2)
    job.result()
    assert_all_same(safetensors.torch.load_file(path), {"tensor": host})
    stream.synchronize()


def test_a_strided_save_comes_behind_the_work_that_makes_its_tensors(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device
) -> None:
    host = content(5000, 2000).pin_memory()
    path = str(tmp_path / "model.safetensors")
    stream = torch.Stream(device=device)
    with accelerator.held(stream):
        with stream:
            tensor = host.to(device, non_blocking=True).t()
            job = ops.start_save({"tensor": tensor}, path, num_threads=2)
        assert not job.wait(0.2)
    job.result()
    assert_all_same(safetensors.torch.load_file(path), {"tensor": host.t().contiguous()})
    stream.synchronize()
