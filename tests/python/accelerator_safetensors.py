"""The drop-in for safetensors on a simulated accelerator. Run by test_accelerator.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from accelerator_support import assert_all_same, assert_same

from veturboio.safetensors import safe_open
from veturboio.safetensors.torch import load_file, save, save_file

Model = tuple[str, dict[str, torch.Tensor]]


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_load_file(model: Model, device: torch.device, backend: str) -> None:
    path, expected = model
    loaded = load_file(path, str(device), backend=backend)
    assert_all_same(loaded, expected)
    assert {tensor.device for tensor in loaded.values()} == {device}


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_tensors_and_slices(model: Model, device: torch.device, backend: str) -> None:
    path, expected = model
    with safe_open(path, "pt", device, backend=backend) as file:
        assert_all_same(file.get_tensors(), expected)
        assert_same(file.get_tensor("large"), expected["large"])
        for index in (3, slice(100, 200), (slice(None), slice(0, 500, 9)), ...):
            part = file.get_slice("matrix")[index]
            assert part.device == device
            assert_same(part, expected["matrix"][index])


def test_an_int_is_an_index_among_the_accelerators(model: Model, devices: tuple[torch.device, ...]) -> None:
    path, _ = model
    assert safe_open(path, "pt", 1).get_tensor("scalar").device == devices[1]
    assert load_file(path, 1)["scalar"].device == devices[1]


def test_prefetch_to_another_device_than_that_of_the_file(model: Model, devices: tuple[torch.device, ...]) -> None:
    path, expected = model
    plan: dict[str, Any] = {"late": None, "matrix": slice(20, 40), "nothing": None}
    with safe_open(path, "pt") as file:
        loaders = [file.prefetch(plan, device=device, threads=2) for device in devices]
        for device, loader in zip(devices, loaders, strict=True):
            loaded = dict(loader)
            assert {tensor.device for tensor in loaded.values()} == {device}
            assert_all_same(loaded, {name: expected[name][rows] if rows else expected[name] for name, rows in plan.items()})


def test_prefetch_goes_to_the_current_device_of_who_asks(model: Model, devices: tuple[torch.device, ...]) -> None:
    path, expected = model
    torch.accelerator.set_device_index(1)
    try:
        loader = safe_open(path, "pt", devices[1].type).prefetch()
    finally:
        torch.accelerator.set_device_index(0)
    loaded = dict(loader)
    assert {tensor.device for tensor in loaded.values()} == {devices[1]}
    assert_all_same(loaded, expected)


def test_saving_from_a_device(tmp_path: Path, model: Model, device: torch.device) -> None:
    path, expected = model
    tensors = load_file(path, device)
    save_file(tensors, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == Path(path).read_bytes() == save(tensors)
    assert_all_same(safetensors.torch.load_file(str(tmp_path / "copy")), expected)


def test_arrays_are_on_the_cpu(model: Model, device: torch.device) -> None:
    with pytest.raises(safetensors.SafetensorError, match="is not supported for framework numpy"):
        safe_open(model[0], "np", device)
