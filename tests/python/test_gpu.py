"""What must hold on a real accelerator, of whatever kind. Skipped without one, unless VETURBOIO_REQUIRE_GPU=1: then it fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from accelerator_support import assert_all_same, assert_same, content

import veturboio

MIB = 1 << 20
CHUNK = 4 * MIB
ops = torch.ops.veturbo

pytestmark = pytest.mark.gpu


@pytest.fixture
def device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        reason = f"PyTorch {torch.__version__} finds no accelerator on this machine"
        if os.environ.get("VETURBOIO_REQUIRE_GPU") == "1":
            pytest.fail(f"{reason}, and VETURBOIO_REQUIRE_GPU=1")
        pytest.skip(reason)
    return torch.device(accelerator.type, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, torch.Tensor]]:
    """A file of several chunks, large enough for threads, and what is in it. No test changes either."""
    tensors = {
        "large": content(5 * CHUNK + 5, seed=1),
        "matrix": content(600, 500, dtype=torch.bfloat16, seed=2),
        "nothing": content(0, 7, dtype=torch.float16, seed=3),
        "scalar": content(dtype=torch.int64, seed=4),
        **{f"small {i}": content(i * 37 % 300, seed=i) for i in range(100)},
    }
    path = str(tmp_path_factory.mktemp("model") / "model.safetensors")
    safetensors.torch.save_file(tensors, path)
    return path, tensors


@pytest.mark.parametrize("use_pinned_memory", [True, False])
@pytest.mark.parametrize("use_direct_io", [True, False])
@pytest.mark.parametrize("num_threads", [0, 1, 8])
def test_load(
    model: tuple[str, dict[str, torch.Tensor]],
    device: torch.device,
    num_threads: int,
    use_direct_io: bool,
    use_pinned_memory: bool,
) -> None:
    path, expected = model
    loaded = ops.load_file(
        path, device, num_threads=num_threads, use_direct_io=use_direct_io, use_pinned_memory=use_pinned_memory
    )
    assert {tensor.device for tensor in loaded.values()} == {device}
    assert_all_same(loaded, expected)


def test_sizes_around_the_borders_of_chunks(tmp_path: Path, device: torch.device) -> None:
    path = str(tmp_path / "model.safetensors")
    for size in (1, 4095, CHUNK - 80, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1):
        expected = {"tensor": content(size, seed=size)}
        safetensors.torch.save_file(expected, path)
        assert_all_same(veturboio.load(path, device), expected)


def test_a_device_without_an_index_is_the_current_one(model: tuple[str, dict[str, torch.Tensor]], device: torch.device) -> None:
    path, expected = model
    loaded = veturboio.load(path, device.type)
    current = torch.device(device.type, torch.accelerator.current_device_index())
    assert {tensor.device for tensor in loaded.values()} == {current}
    assert_all_same(loaded, expected)


def test_load_with_a_helper(model: tuple[str, dict[str, torch.Tensor]], device: torch.device) -> None:
    path, expected = model
    helper = veturboio.init_io_helper()
    assert_all_same(veturboio.load(path, device, helper=helper, use_pinmem=True), expected)
    held = helper.bytes()
    assert held > 0
    assert_all_same(veturboio.load(path, device, helper=helper, use_pinmem=True), expected)
    assert helper.bytes() == held
    helper.release()
    assert helper.bytes() == 0
    assert_all_same(veturboio.load(path, device, helper=helper, use_pinmem=True), expected)


def test_threads_share_a_helper(model: tuple[str, dict[str, torch.Tensor]], device: torch.device) -> None:
    path, expected = model
    helper = veturboio.init_io_helper()
    loaded: list[dict[str, torch.Tensor]] = []

    def load() -> None:
        loaded.append(veturboio.load(path, device, helper=helper, use_pinmem=True, num_thread=2))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 4
    for tensors in loaded:
        assert_all_same(tensors, expected)


def test_staging_is_bounded_and_does_not_grow_with_the_file(tmp_path: Path, device: torch.device) -> None:
    path = str(tmp_path / "model.safetensors")
    held = []
    for num_chunks in (8, 24):
        helper = veturboio.init_io_helper()
        expected = {"tensor": torch.arange(num_chunks * CHUNK // 8)}
        veturboio.save_file(expected, path)
        loaded = ops.load_file(path, device, num_threads=2, use_direct_io=False, helper=helper.native)
        held.append(helper.bytes())
        assert_all_same(loaded, expected)
    assert held[0] == held[1] <= 256 * MIB


def test_load_in_place_contiguous_strided_and_beside_the_cpu(
    model: tuple[str, dict[str, torch.Tensor]], device: torch.device
) -> None:
    path, expected = model
    targets = {name: torch.zeros_like(tensor, device=device) for name, tensor in expected.items()}
    targets["matrix"] = torch.zeros(500, 600, dtype=torch.bfloat16, device=device).t()
    targets["small 7"] = torch.zeros_like(expected["small 7"])
    addresses = {name: tensor.data_ptr() for name, tensor in targets.items()}
    assert veturboio.load(path, state_dict=targets) is targets
    assert {name: tensor.data_ptr() for name, tensor in targets.items()} == addresses
    assert_all_same(targets, expected)


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
def test_modes(
    model: tuple[str, dict[str, torch.Tensor]], device: torch.device, mode: Callable[[], AbstractContextManager[Any]]
) -> None:
    path, expected = model
    with mode():
        loaded = veturboio.load(path, device)
        targets = {name: torch.empty_like(tensor, device=device) for name, tensor in expected.items()}
        veturboio.load(path, state_dict=targets)
    for tensors in (loaded, targets):
        assert_all_same(tensors, expected)
        assert all(tensor.is_inference() == (mode is torch.inference_mode) for tensor in tensors.values())


def test_a_load_comes_behind_what_the_current_stream_does_with_its_memory(
    model: tuple[str, dict[str, torch.Tensor]], device: torch.device
) -> None:
    # The allocator hands out the memory of `scratch` again while the stream is still to write to it.
    path, expected = model
    stream = torch.Stream(device=device)
    host = torch.full((64 * MIB,), 255, dtype=torch.uint8, pin_memory=True)
    with stream:
        for _ in range(3):
            for size in (5 * CHUNK + 5, 600_000):
                scratch = torch.empty(size, dtype=torch.uint8, device=device)
                for _ in range(8):
                    scratch.copy_(host[:size], non_blocking=True)
                del scratch
            loaded = veturboio.load(path, device)
            stream.synchronize()
            assert_all_same(loaded, expected)


def test_a_load_in_place_comes_behind_what_the_current_stream_does_with_the_tensors(
    model: tuple[str, dict[str, torch.Tensor]], device: torch.device
) -> None:
    path, expected = model
    targets = {name: torch.zeros_like(tensor, device=device) for name, tensor in expected.items()}
    stream = torch.Stream(device=device)
    host = torch.full((5 * CHUNK + 5,), 255, dtype=torch.uint8, pin_memory=True)
    torch.accelerator.synchronize(device)
    with stream:
        for _ in range(20):
            targets["large"].copy_(host, non_blocking=True)
        veturboio.load(path, state_dict=targets)
    stream.synchronize()
    assert_all_same(targets, expected)


def test_a_save_writes_what_safetensors_writes(
    model: tuple[str, dict[str, torch.Tensor]], device: torch.device, tmp_path: Path
) -> None:
    path, tensors = model
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    placed["small 7"] = tensors["small 7"]
    placed["matrix"] = tensors["matrix"].t().contiguous().to(device).t()
    assert not placed["matrix"].is_contiguous()
    saved = tmp_path / "saved.safetensors"
    helper = veturboio.init_io_helper()
    for _ in range(2):
        veturboio.save_file(placed, saved, helper=helper)
        assert saved.read_bytes() == Path(path).read_bytes()
    assert 0 < helper.bytes() <= 256 * MIB


def test_a_save_comes_behind_the_work_that_makes_its_tensors(device: torch.device, tmp_path: Path) -> None:
    host = content(64 * MIB).pin_memory()
    path = tmp_path / "model.safetensors"
    stream = torch.Stream(device=device)
    tensor = torch.zeros(64 * MIB, dtype=torch.uint8, device=device)
    torch.accelerator.synchronize(device)
    with stream:
        tensor.copy_(host, non_blocking=True)
        veturboio.save_file({"tensor": tensor}, path)
    assert_all_same(safetensors.torch.load_file(path), {"tensor": host})


KEYS = {bits: bytes(range(bits // 8)) for bits in (128, 256)}
IV = b"\xff" * 15 + b"\xfd"  # wraps around after three blocks


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("use_direct_io", [True, False])
def test_encrypted_models(tmp_path: Path, device: torch.device, bits: int, use_direct_io: bool) -> None:
    """Saved from the device and loaded to it: on CUDA that decrypts there, elsewhere on the CPU."""
    tensors = {f"{i}": content(size, seed=i) for i, size in enumerate([5, 0, 2 * CHUNK + 3, 1, CHUNK - 1, 17, 16, 3 * MIB])}
    arguments = {"key": os.urandom(bits // 8), "iv": IV}
    on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
    veturboio.save_file(on_device, tmp_path / "from device", **arguments)
    assert_all_same(veturboio.load(tmp_path / "from device", **arguments), tensors)
    assert_all_same(on_device, tensors)
    loaded = veturboio.load(tmp_path / "from device", map_location=device, use_direct_io=use_direct_io, **arguments)
    assert_all_same(loaded, tensors)
    targets = {name: torch.empty_like(tensor) for name, tensor in on_device.items()} | {"4": torch.empty_like(tensors["4"])}
    veturboio.load(tmp_path / "from device", state_dict=targets, **arguments)
    assert_all_same(targets, tensors)


@pytest.mark.parametrize("bits", [128, 256])
def test_encrypted_models_with_many_tensors_in_a_chunk(tmp_path: Path, device: torch.device, bits: int) -> None:
    tensors = {f"{i:04}": content(i % 100, seed=i) for i in range(2000)}
    key = os.urandom(bits // 8)
    veturboio.save_file(tensors, tmp_path / "model", key=key, iv=IV)
    assert_all_same(veturboio.load(tmp_path / "model", map_location=device, key=key, iv=IV), tensors)


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("skew", [0, 1, 7, 16])
@pytest.mark.parametrize("offset", [0, 5, 16, (1 << 40) + 11])
def test_aes_ctr_decrypt_does_on_a_gpu_what_it_does_on_the_cpu(device: torch.device, bits: int, skew: int, offset: int) -> None:
    if device.type != "cuda":
        pytest.skip(f"aes_ctr_decrypt_ is for the CPU and CUDA, this accelerator is {device.type}")
    key, iv = (torch.frombuffer(bytearray(value), dtype=torch.uint8) for value in (KEYS[bits], IV))
    for size in (0, 1, 15, 16, 17, 1000, 3 * MIB + 5):
        plain = content(size + skew, seed=size)
        on_device = plain.to(device)
        ops.aes_ctr_decrypt_(on_device[skew:], key, iv, offset)
        expected = plain.clone()
        ops.aes_ctr_decrypt_(expected[skew:], key, iv, offset)
        assert_same(on_device, expected)


def test_aes_ctr_decrypt_comes_behind_the_work_of_the_current_stream(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip(f"aes_ctr_decrypt_ is for the CPU and CUDA, this accelerator is {device.type}")
    key, iv = (torch.frombuffer(bytearray(value), dtype=torch.uint8) for value in (KEYS[256], IV))
    large = content(64 * MIB)
    expected = large.clone()
    ops.aes_ctr_decrypt_(expected, key, iv)
    with torch.Stream(device=device):
        on_device = torch.zeros_like(large, device=device)
        for _ in range(20):
            on_device += 1
        on_device.copy_(large)
        ops.aes_ctr_decrypt_(on_device, key, iv)
        found = on_device.cpu()
    assert_same(found, expected)
