"""Loads to a simulated accelerator and saves from it. Run by test_accelerator.py in a process of its own.

The accelerator (tests/fakes/accelerator) begins its copies late and at random, overwrites memory that it hands out, behind what
its stream still has to do, and reports what is freed too early: the fixture then fails the test.
"""

from __future__ import annotations

import _thread
import gc
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from fake_accelerator import FakeAccelerator
from sfcs_cluster import Folder

import veturboio

MIB = 1 << 20
CHUNK = 4 * MIB  # of a load through the page cache
WRITE_CHUNK = 8 * MIB
FAILURE = "was told to fail"

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
ops = torch.ops.veturbo


def content(*shape: int, dtype: torch.dtype = torch.uint8, seed: int = 0) -> torch.Tensor:
    """A CPU tensor of random bytes: not numbers, denormals and all."""
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shape) * dtype.itemsize
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


def raw_bytes(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.is_cpu
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Compares the bytes as another stream than the current one finds them, which waits for nothing."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if not actual.is_cpu:
        with torch.Stream(device=actual.device):
            actual = actual.cpu()
    assert torch.equal(raw_bytes(actual), raw_bytes(expected))


def assert_all_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_same(actual[name], tensor)


def in_thread(body: Callable[[], Any]) -> Callable[[], Any]:
    """Runs `body` in another thread; the result is called to join it and to get what it returned or raised."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(body())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> Any:
        thread.join(60)
        assert not thread.is_alive(), "hangs"
        if failure:
            raise failure[0]
        return outcome[0]

    return join


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("what was waited for did not come about")


@pytest.fixture
def device(accelerator: FakeAccelerator) -> torch.device:
    return accelerator.devices[0]


@pytest.fixture
def devices(accelerator: FakeAccelerator) -> tuple[torch.device, ...]:
    return accelerator.devices


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, torch.Tensor]]:
    """A file of several chunks, large enough for threads, and what is in it. No test changes either."""
    tensors = {
        "large": content(3 * CHUNK + 5, seed=1),
        "matrix": content(600, 500, dtype=torch.float32, seed=2),
        "nothing": content(0, 7, dtype=torch.float16, seed=3),
        "scalar": content(dtype=torch.int64, seed=4),
        "late": content(CHUNK + 1, seed=5),
    }
    path = str(tmp_path_factory.mktemp("model") / "model.safetensors")
    safetensors.torch.save_file(tensors, path)
    return path, tensors


# The simulated accelerator itself: it would prove nothing if it were lenient.


def test_a_copy_is_not_there_before_it_is_waited_for(accelerator: FakeAccelerator, device: torch.device) -> None:
    host = torch.ones(1000, pin_memory=True)
    back = torch.zeros(1000, pin_memory=True)
    stream = torch.accelerator.current_stream(device)
    with accelerator.held(stream):
        back.copy_(host.to(device, non_blocking=True), non_blocking=True)
        assert not stream.query()
        assert not back.any()
    stream.synchronize()
    assert torch.equal(back, host)


def test_streams_wait_for_each_other_only_by_events(accelerator: FakeAccelerator, device: torch.device) -> None:
    first, second = torch.Stream(device=device), torch.Stream(device=device)
    event = torch.Event(device=device)
    with accelerator.held(first):
        event.record(first)
        second.synchronize()  # not held up
        second.wait_event(event)
        assert not event.query()
        assert not second.query()
    second.synchronize()
    assert event.query()


def test_the_cpu_cannot_touch_device_memory() -> None:
    program = (
        "import ctypes, torch, fake_accelerator\n"
        "tensor = torch.ones(4).to('simulated:0')\n"
        "print('touching', flush=True)\n"
        "ctypes.string_at(tensor.data_ptr(), 1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "touching\n"
    assert done.returncode == -11


def test_memory_freed_too_early_is_reported(accelerator: FakeAccelerator, device: torch.device) -> None:
    target = torch.empty(1000, device=device)
    host = torch.ones(1000, pin_memory=True)
    other = torch.Stream(device=device)
    with accelerator.held(other):
        with other:
            target.copy_(host, non_blocking=True)
        del host
        assert accelerator.take_violations().startswith("pinned memory of 4096 bytes was freed")
        del target
        assert accelerator.take_violations().startswith("device memory of 4096 bytes was freed")


def test_memory_that_is_freed_is_reused_behind_the_work_of_its_stream(accelerator: FakeAccelerator, device: torch.device) -> None:
    host = torch.ones(1000, pin_memory=True)
    with accelerator.held(torch.accelerator.current_stream(device)):
        first = host.to(device, non_blocking=True)
        address = first.data_ptr()
        del first
        assert torch.empty(1000, device=device).data_ptr() == address
    torch.accelerator.synchronize(device)  # the copy from `host` ends before it is freed


# Loading.


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


# The order of things on streams.


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


# Loading in place.


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


# Staging memory.


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


# Failures.


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


# Giving up.


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


# Saving.


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
