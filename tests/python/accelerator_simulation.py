"""The simulated accelerator itself: it would prove nothing if it were lenient. Run by test_accelerator.py."""

from __future__ import annotations

import subprocess
import sys

import torch
from fake_accelerator import FakeAccelerator


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
