"""What the tests on a simulated accelerator share: a plugin of test_accelerator.py's processes, for its fixtures.

The accelerator (tests/fakes/accelerator) begins its copies late and at random, overwrites memory that it hands out, behind what
its stream still has to do, and reports what is freed too early: the fixture then fails the test.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch

if TYPE_CHECKING:  # importing it makes the simulated accelerator this process's; test_gpu.py is for real ones
    from fake_accelerator import FakeAccelerator

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
