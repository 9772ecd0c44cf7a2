"""Saves from a simulated accelerator. Run by test_accelerator.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from accelerator_support import (
    DTYPES,
    MIB,
    WRITE_CHUNK,
    assert_all_same,
    assert_same,
    content,
    ops,
)
from fake_accelerator import FakeAccelerator
from sfcs_cluster import Folder

import veturboio


def test_a_save_from_devices_writes_what_safetensors_writes_for_the_same_tensors(
    tmp_path: Path, devices: tuple[torch.device, ...]
) -> None:
    tensors = {str(dtype): content(33, 65, dtype=dtype, seed=1) for dtype in DTYPES}
    tensors |= {
        "large": content(3 * WRITE_CHUNK + 1, seed=2),
        "scalar": content(dtype=torch.float64, seed=3),
        "nothing": content(0, 5, dtype=torch.int8),
        "transposed": content(300, 500, dtype=torch.int32, seed=4).t(),
        "every other": content(300, 500, dtype=torch.int32, seed=5)[:, ::2],
    }
    ours = tmp_path / "ours.safetensors"
    theirs = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, theirs)
    places = [*devices, torch.device("cpu")]
    for first in range(3):  # each tensor from each place
        placed = {name: on(places[(first + i) % 3], tensor) for i, (name, tensor) in enumerate(tensors.items())}
        assert not placed["every other"].is_contiguous()
        veturboio.save_file(placed, ours)
        assert ours.read_bytes() == theirs.read_bytes()


def on(place: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor elsewhere, with the strides that it has here."""
    elsewhere = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=place)
    return elsewhere.copy_(tensor)


def test_lazy_views_are_saved_as_what_they_stand_for(tmp_path: Path, device: torch.device) -> None:
    tensor = torch.randn(40, 30, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "model.safetensors"
    veturboio.save_file({"conjugated": tensor.to(device).conj(), "negated": torch._neg_view(tensor.to(device))}, path)
    expected = {"conjugated": tensor.conj().resolve_conj(), "negated": -tensor}
    assert_all_same(safetensors.torch.load_file(path), expected)


def test_tied_weights_on_a_device(tmp_path: Path, device: torch.device) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(20, 20, bias=False), torch.nn.Linear(20, 20, bias=False))
    model.to(device)
    model[1].weight = model[0].weight
    path = tmp_path / "model.safetensors"
    veturboio.save_model(model, path)
    assert list(safetensors.torch.load_file(path)) == ["0.weight"]
    loaded = veturboio.load(path, device)
    assert loaded["1.weight"] is loaded["0.weight"]
    assert_same(loaded["0.weight"], model[0].weight.detach().cpu())


def test_a_save_makes_no_second_copy_on_the_host(tmp_path: Path, accelerator: FakeAccelerator, device: torch.device) -> None:
    tensor = torch.arange(12 * WRITE_CHUNK // 8).to(device)
    path = str(tmp_path / "model.safetensors")
    accelerator.reset_counters()
    ops.save_file({"tensor": tensor}, path, num_threads=2)
    assert WRITE_CHUNK <= accelerator.counter("peak_pinned_bytes") <= 2 * WRITE_CHUNK
    assert accelerator.counter("pinned_blocks_lent") == 0


def test_a_save_stages_at_most_256_mib_however_many_threads(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device
) -> None:
    tensor = torch.arange(36 * WRITE_CHUNK // 8).to(device)
    path = str(tmp_path / "model.safetensors")
    ops.save_file({"tensor": tensor}, path, num_threads=36)
    assert accelerator.counter("peak_pinned_bytes") <= 256 * MIB
    assert_all_same(safetensors.torch.load_file(path), {"tensor": torch.arange(36 * WRITE_CHUNK // 8)})


def test_files_of_torch_save_go_to_the_device(tmp_path: Path, device: torch.device) -> None:
    expected = {"tensor": content(100, 200, dtype=torch.float32)}
    path = tmp_path / "model.pt"
    torch.save(expected, path)
    assert_all_same(veturboio.load(path, device), expected)
    target = {"tensor": torch.zeros(100, 200, device=device)}
    veturboio.load(path, state_dict=target)
    assert_all_same(target, expected)


@pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")
@pytest.mark.parametrize("key", [{}, {"key": bytes(32), "iv": bytes(16)}], ids=["plain", "encrypted"])
def test_files_of_sfcs_go_to_the_device_and_come_from_it(sfcs: Folder, device: torch.device, key: dict[str, bytes]) -> None:
    expected = {"large": content(3000, 2000, dtype=torch.float32), "small": content(7, dtype=torch.int8)}
    veturboio.save_file({name: tensor.to(device) for name, tensor in expected.items()}, sfcs.uri("model"), **key)
    assert_all_same(veturboio.load(sfcs.uri("model"), device, **key), expected)
    veturboio.save_pt(expected, sfcs.uri("model.pt"), **key)
    assert_all_same(veturboio.load(sfcs.uri("model.pt"), device, **key), expected)
