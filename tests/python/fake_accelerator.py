"""The simulated accelerator of tests/fakes/accelerator, for tests: "simulated:0" and "simulated:1".

It becomes the accelerator of the whole process, for good. So the tests that use it run in processes of their own, which
test_accelerator.py starts with this module as a plugin; by hand: PYTHONPATH=tests:tests/python pytest -p fake_accelerator FILE.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fakes.build import make

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "fakes" / "accelerator"
BUILD = ROOT / "build" / "fakes"
NAME = "simulated"
SEED = 20


def _build() -> Path:
    make("the simulated accelerator", SOURCES, OUT=BUILD, TORCH=Path(torch.__file__).parent, VERSION=torch.__version__)
    return BUILD / f"torch-{torch.__version__}" / "libfake_accelerator.so"


class FakeAccelerator:
    """What it tells, and what it may be told."""

    def __init__(self) -> None:
        path = str(_build())
        torch.ops.load_library(path)
        torch.utils.rename_privateuse1_backend(NAME)
        module = types.ModuleType(f"torch.{NAME}")
        module.__dict__.update(
            is_available=lambda: True,
            device_count=lambda: 2,
            current_device=torch.accelerator.current_device_index,
            device=lambda device: torch.accelerator.device_index(torch.device(device).index),
        )
        torch._register_device_module(NAME, module)
        self.devices = (torch.device(NAME, 0), torch.device(NAME, 1))
        self._library = ctypes.CDLL(path)
        self._library.fake_violations.restype = ctypes.c_char_p
        self._library.fake_counter.restype = ctypes.c_int64

    def counter(self, name: str) -> int:
        value = int(self._library.fake_counter(name.encode()))
        assert value >= 0, f"no counter {name}"
        return value

    def reset_counters(self) -> None:
        self._library.fake_reset_counters()

    def take_violations(self) -> str:
        """What was done that no device allows, a line each, and forgets it."""
        text = self._library.fake_violations().decode()
        self._library.fake_clear_violations()
        return str(text)

    def set_max_delay_us(self, value: int) -> None:
        self._library.fake_set_max_delay_us(ctypes.c_int64(value))

    def fail_copy(self, which: int) -> None:
        self._library.fake_fail_copy(ctypes.c_int64(which))

    def fail_event(self, which: int) -> None:
        self._library.fake_fail_event(ctypes.c_int64(which))

    def hold(self, stream: torch.Stream, held: bool) -> None:
        self._library.fake_hold(ctypes.c_int64(stream.device.index), ctypes.c_int64(stream.stream_id), int(held))

    def hold_pool(self, device: torch.device, held: bool) -> None:
        """All streams of the device but the default one."""
        for stream in range(1, int(self._library.fake_streams_per_device())):
            self._library.fake_hold(ctypes.c_int64(device.index), ctypes.c_int64(stream), int(held))

    def let_go_later(self, device: torch.device, milliseconds: int) -> None:
        """Ends any hold from a thread that is not Python's: also while Python waits with its lock held."""
        self._library.fake_let_go_later(ctypes.c_int64(device.index), ctypes.c_int64(milliseconds))

    @contextmanager
    def held_pool(self, device: torch.device) -> Iterator[None]:
        self.hold_pool(device, held=True)
        try:
            yield
        finally:
            self.hold_pool(device, held=False)

    @contextmanager
    def held(self, stream: torch.Stream) -> Iterator[None]:
        self.hold(stream, held=True)
        try:
            yield
        finally:
            self.hold(stream, held=False)

    def reset(self) -> None:
        self._library.fake_reset(ctypes.c_uint64(SEED))


_fake = FakeAccelerator()


@pytest.fixture(autouse=True)
def accelerator() -> Iterator[FakeAccelerator]:
    """The accelerator as new; the test fails if it then was used as no device may be."""
    _fake.reset()
    yield _fake
    violations = _fake.take_violations()
    _fake.reset()
    assert not violations, f"the accelerator was misused:\n{violations}"
