"""Loads to a simulated accelerator. Run by test_accelerator.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from accelerator_support import (
    CHUNK,
    DTYPES,
    assert_all_same,
    assert_same,
    content,
    in_thread,
    ops,
    wait_until,
)
from fake_accelerator import FakeAccelerator

import veturboio


@pytest.mark.parametrize("use_direct_io", [False, True])
@pytest.mark.parametrize("use_pinned_memory", [True, False])
@pytest.mark.parametrize("num_threads", [1, 4])
def test_sizes_around_the_borders_of_chunks(
    tmp_path: Path, device: torch.device, num_threads: int, use_pinned_memory: bool, use_direct_io: bool
) -> None:
    path = str(tmp_path / "model.safetensors")
    header = 80  # bytes before the data of such a file: the chunks are cut in the file
    for border in (4096, CHUNK, 2 * CHUNK):
        for size in (border - header, border - 1, border, border + 1):
            expected = {"tensor": content(size, seed=size)}
            safetensors.torch.save_file(expected, path)
            loaded = ops.load_file(
                path, device, num_threads=num_threads, use_pinned_memory=use_pinned_memory, use_direct_io=use_direct_io
            )
            assert_all_same(loaded, expected)
            assert loaded["tensor"].device == device


@pytest.mark.parametrize("num_threads", range(1, 9))
def test_any_number_of_threads(model: tuple[str, dict[str, torch.Tensor]], device: torch.device, num_threads: int) -> None:
    path, expected = model
    assert_all_same(veturboio.load(path, device, num_thread=num_threads), expected)


def test_many_small_tensors(tmp_path: Path, device: torch.device) -> None:
    expected = {f"t{i}": content(i * 37 % 300, seed=i) for i in range(1500)}
    expected |= {f"m{i}": content(5000 + i * 997, dtype=torch.int16, seed=i) for i in range(150)}
    path = str(tmp_path / "model.safetensors")
    safetensors.torch.save_file(expected, path)
    loaded = veturboio.load(path, device, num_thread=4)
    assert loaded.keys() == expected.keys()
    # One by one, the copies back would take longer than all the rest.
    for names in (sorted(name for name in expected if name[0] == letter) for letter in "tm"):
        with torch.Stream(device=device):
            together = torch.cat([loaded[name] for name in names]).cpu()
        assert_same(together, torch.cat([expected[name] for name in names]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(tmp_path: Path, device: torch.device, dtype: torch.dtype) -> None:
    expected = {
        "matrix": content(33, 65, dtype=dtype, seed=1),
        "scalar": content(dtype=dtype, seed=2),
        "nothing": content(3, 0, dtype=dtype),
    }
    path = str(tmp_path / "model.safetensors")
    veturboio.save_file(expected, path)
    assert_all_same(veturboio.load(path, device), expected)


def test_pairs_of_4_bit_floats(tmp_path: Path, device: torch.device) -> None:
    expected = {"pairs": content(8, 32).view(torch.float4_e2m1fn_x2)}
    path = str(tmp_path / "model.safetensors")
    veturboio.save_file(expected, path)
    assert_all_same(veturboio.load(path, device), expected)


def test_without_fast_mode_nothing_is_pinned(
    model: tuple[str, dict[str, torch.Tensor]], accelerator: FakeAccelerator, device: torch.device
) -> None:
    path, expected = model
    assert_all_same(veturboio.load(path, device, enable_fast_mode=False), expected)
    assert accelerator.counter("peak_pinned_bytes") == 0


def test_only_the_names_that_are_asked_for(model: tuple[str, dict[str, torch.Tensor]], device: torch.device) -> None:
    path, expected = model
    names = ["late", "scalar"]
    loaded = ops.load_file(path, device, names=names)
    assert_all_same(loaded, {name: expected[name] for name in names})


def test_a_device_without_an_index_is_the_current_one(
    model: tuple[str, dict[str, torch.Tensor]], devices: tuple[torch.device, ...]
) -> None:
    path, expected = model
    torch.accelerator.set_device_index(1)
    try:
        loaded = veturboio.load(path, "simulated")
        by_operator = ops.load_file(path, torch.device("simulated"))
    finally:
        torch.accelerator.set_device_index(0)
    for tensors in (loaded, by_operator):
        assert {tensor.device for tensor in tensors.values()} == {devices[1]}
        assert_all_same(tensors, expected)


def test_an_index_is_one_of_the_accelerators(
    model: tuple[str, dict[str, torch.Tensor]], devices: tuple[torch.device, ...]
) -> None:
    path, expected = model
    loaded = veturboio.load(path, 1)
    assert {tensor.device for tensor in loaded.values()} == {devices[1]}
    assert_all_same(loaded, expected)


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(model: tuple[str, dict[str, torch.Tensor]]) -> None:
    with pytest.raises(RuntimeError, match="has no device simulated:2"):
        veturboio.load(model[0], "simulated:2")


@pytest.mark.parametrize("size", [1000, 3 * CHUNK])  # by the calling thread, by threads
def test_the_current_device_and_streams_stay_what_they_were(tmp_path: Path, devices: tuple[torch.device, ...], size: int) -> None:
    path = str(tmp_path / "model.safetensors")
    veturboio.save_file({"tensor": content(size)}, path)
    before = [torch.accelerator.current_stream(device) for device in devices]
    loaded = veturboio.load(path, devices[1])
    veturboio.save_file(loaded, path)
    assert torch.accelerator.current_device_index() == 0
    assert [torch.accelerator.current_stream(device) for device in devices] == before


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("from_thread", [False, True], ids=["main thread", "other thread"])
def test_modes_and_threads(
    model: tuple[str, dict[str, torch.Tensor]],
    devices: tuple[torch.device, ...],
    mode: Callable[[], AbstractContextManager[Any]],
    from_thread: bool,
) -> None:
    path, expected = model

    def body() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        with mode():  # is the thread's own
            ours = {name: torch.empty_like(tensor, device=devices[1]) for name, tensor in expected.items()}
            return veturboio.load(path, devices[1]), veturboio.load(path, state_dict=ours)

    loaded, in_place = in_thread(body)() if from_thread else body()
    for tensors in (loaded, in_place):
        assert_all_same(tensors, expected)
        assert all(tensor.is_inference() == (mode is torch.inference_mode) for tensor in tensors.values())


def test_tensors_made_in_inference_mode_are_loaded_into_outside_of_it(
    model: tuple[str, dict[str, torch.Tensor]], device: torch.device
) -> None:
    path, expected = model
    with torch.inference_mode():
        targets = {name: torch.empty_like(tensor, device=device) for name, tensor in expected.items()}
    veturboio.load(path, state_dict=targets)
    assert_all_same(targets, expected)


def test_tensors_made_outside_of_inference_mode_are_loaded_into_in_it(
    model: tuple[str, dict[str, torch.Tensor]], device: torch.device
) -> None:
    path, expected = model
    targets = {name: torch.empty_like(tensor, device=device) for name, tensor in expected.items()}
    with torch.inference_mode():
        veturboio.load(path, state_dict=targets)
    assert_all_same(targets, expected)


def test_in_place_over_the_cpu_and_two_devices_contiguous_and_strided(tmp_path: Path, devices: tuple[torch.device, ...]) -> None:
    places = [torch.device("cpu"), *devices]
    expected = {f"{kind} {place}": content(700, 900, dtype=torch.int32, seed=1) for kind in "abc" for place in places}
    expected |= {f"large {place}": content(2 * CHUNK + 3, seed=2) for place in places}
    path = str(tmp_path / "model.safetensors")
    safetensors.torch.save_file(expected, path)
    gaps = {}
    targets = {}
    for place in places:
        targets[f"a {place}"] = torch.zeros(700, 900, dtype=torch.int32, device=place)
        targets[f"b {place}"] = torch.zeros(900, 700, dtype=torch.int32, device=place).t()
        gaps[place] = torch.full((700, 1800), 7, dtype=torch.int32).to(place)
        targets[f"c {place}"] = gaps[place][:, ::2]
        targets[f"large {place}"] = torch.zeros(2 * CHUNK + 3, dtype=torch.uint8, device=place)
    addresses = {name: target.data_ptr() for name, target in targets.items()}
    versions = {name: target._version for name, target in targets.items()}
    assert veturboio.load(path, state_dict=targets, num_thread=4) is targets
    assert_all_same(targets, expected)
    assert {name: target.data_ptr() for name, target in targets.items()} == addresses
    assert all(target._version > versions[name] for name, target in targets.items())
    for place in places:
        assert_same(gaps[place][:, 1::2], torch.full((700, 900), 7, dtype=torch.int32))


def test_in_place_writes_only_the_view(tmp_path: Path, device: torch.device) -> None:
    expected = content(CHUNK + 100, seed=1)
    path = str(tmp_path / "model.safetensors")
    safetensors.torch.save_file({"tensor": expected}, path)
    around = torch.full((CHUNK + 300,), 7, dtype=torch.uint8).to(device)
    veturboio.load(path, state_dict={"tensor": around[77 : CHUNK + 177]})
    assert_same(around[77 : CHUNK + 177], expected)
    assert_same(around[:77], torch.full((77,), 7, dtype=torch.uint8))
    assert_same(around[CHUNK + 177 :], torch.full((123,), 7, dtype=torch.uint8))


def test_in_place_into_parameters(tmp_path: Path, device: torch.device) -> None:
    source = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 10, bias=False))
    target = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 10, bias=False)).to(device)
    path = str(tmp_path / "model.safetensors")
    veturboio.save_model(source, path)
    veturboio.load(path, state_dict=dict(target.named_parameters()))
    assert_all_same({name: value.detach() for name, value in target.named_parameters()}, source.state_dict())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in target.parameters())


@pytest.mark.parametrize("file_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", ["in place", "from meta", "assigned"])
def test_modules(tmp_path: Path, devices: tuple[torch.device, ...], way: str, file_dtype: torch.dtype) -> None:
    source = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 10, bias=False)).to(file_dtype)
    target = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 10, bias=False))
    if way == "from meta":
        target = target.to("meta")
    elif way == "in place":
        for layer, device in zip(target, devices, strict=False):
            layer.to(device)
    path = str(tmp_path / "model.safetensors")
    veturboio.save_model(source, path)
    veturboio.load_into(target, path, map_location=devices[0], assign=way == "assigned")
    expected = source.state_dict() if way == "assigned" else source.float().state_dict()
    assert_all_same(target.state_dict(), expected)
    assert [layer.weight.device for layer in target] == list(devices[:2] if way == "in place" else devices[:1] * 2)


def test_the_result_of_a_strided_load_may_be_fetched_on_another_stream(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device
) -> None:
    # The tensor that was read into belongs to the stream on which the load began: it must not go while another copies from it.
    expected = content(3000, 2000, seed=1)
    path = str(tmp_path / "model.safetensors")
    safetensors.torch.save_file({"tensor": expected}, path)
    target = torch.zeros(2000, 3000, dtype=torch.uint8, device=device).t()
    stream = torch.Stream(device=device)
    jobs = [ops.start_load_({"tensor": target}, path)]
    jobs[0].wait(-1.0)

    def fetch_and_drop() -> None:
        with stream:
            jobs.pop().result()

    with accelerator.held(stream):
        fetched = in_thread(fetch_and_drop)
        wait_until(lambda: not stream.query())
        time.sleep(0.1)  # for a job that does not wait to go
    fetched()
    assert_same(target, expected)


INDICES = [slice(100, 200), (slice(None), 3), (slice(0, 600, 7), slice(100, 400)), 5, (slice(None), [1, 3]), slice(4, 4)]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_a_part_of_a_tensor(model: tuple[str, dict[str, torch.Tensor]], device: torch.device, index: Any) -> None:
    path, expected = model
    with veturboio.open(path, device, num_thread=3) as reader:
        part = reader.slice("matrix")[index]
        assert part.device == device
        assert part.is_contiguous()
        assert_same(part, expected["matrix"][index])
        assert_same(reader.tensor("late"), expected["late"])


def several_files(folder: Path) -> dict[str, torch.Tensor]:
    shards = [{f"t{i}.{j}": content(CHUNK // 3 * j + i, seed=7 * i + j) for j in range(5)} for i in range(4)]
    for i, shard in enumerate(shards):
        safetensors.torch.save_file(shard, str(folder / f"model-{i}.safetensors"))
    return {name: tensor for shard in shards for name, tensor in shard.items()}


def test_several_files_through_one_staging_buffer(tmp_path: Path, accelerator: FakeAccelerator, device: torch.device) -> None:
    expected = several_files(tmp_path)
    accelerator.reset_counters()
    loaded = veturboio.load(tmp_path, device, num_thread=2)
    assert accelerator.counter("peak_pinned_bytes") == 4 * CHUNK, "two slots a thread, as for one file"
    assert_all_same(loaded, expected)


def test_several_files_into_tensors_on_the_cpu_and_two_devices(tmp_path: Path, devices: tuple[torch.device, ...]) -> None:
    expected = several_files(tmp_path)
    places = [torch.device("cpu"), *devices]
    targets = {
        name: torch.zeros_like(tensor, device=places[i % len(places)]) for i, (name, tensor) in enumerate(expected.items())
    }
    veturboio.load(tmp_path, state_dict=targets)
    assert_all_same(targets, expected)


def test_the_tensors_of_a_stream_come_through_staging_memory_of_its_own(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device
) -> None:
    expected = several_files(tmp_path)
    seen = {}
    for name, tensor in veturboio.stream(tmp_path, device, max_host_bytes=8 * CHUNK):
        assert tensor.device == device
        assert accelerator.counter("pinned_blocks_lent") > 0
        seen[name] = tensor
    assert accelerator.counter("pinned_blocks_lent") == 0
    assert_all_same(seen, expected)


def test_a_load_in_the_background(model: tuple[str, dict[str, torch.Tensor]], device: torch.device) -> None:
    path, expected = model
    assert_all_same(veturboio.load_async(path, device, num_thread=2).result(), expected)


def test_staging_memory_stays_within_what_the_load_may_take(
    tmp_path: Path, accelerator: FakeAccelerator, device: torch.device
) -> None:
    expected = several_files(tmp_path)
    accelerator.reset_counters()
    assert_all_same(veturboio.load(tmp_path, device, num_thread=4, max_host_bytes=3 * CHUNK), expected)
    assert accelerator.counter("peak_pinned_bytes") == 3 * CHUNK
    with pytest.raises(MemoryError, match=f"needs {CHUNK} bytes of the host's memory, and max_host_bytes is {CHUNK - 1}"):
        veturboio.load(tmp_path, device, max_host_bytes=CHUNK - 1)
