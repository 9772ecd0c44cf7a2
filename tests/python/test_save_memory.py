"""Saving and converting take one copy of the model, and little more."""

from __future__ import annotations

import pytest
import torch
from fresh_process import run_python

# Of this program only: resource.ru_maxrss begins with the peak of the one that started it.
_BYTES_OF = """
def bytes_of(field):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(field)]
    return int(line.split()[1]) * 1024
"""


@pytest.mark.parametrize("order", ["contiguous", "transposed"])
def test_a_save_takes_little_more_memory_than_the_model(tmp_path, order):
    # In a process of its own: the peak is one of its whole life.
    done = run_python(
        _BYTES_OF
        + """
import sys, torch, veturboio
veturboio.save_file({"small": torch.ones(3, 2).t()}, sys.argv[1])
before = bytes_of("VmRSS")
tensors = {str(i): torch.full((1024, 8192), i, dtype=torch.float16) for i in range(40)}
if sys.argv[2] == "transposed":
    tensors = {name: tensor.t() for name, tensor in tensors.items()}
veturboio.save_file(tensors, sys.argv[1])
print(bytes_of("VmHWM") - before, sum(tensor.nbytes for tensor in tensors.values()))
""",
        tmp_path / "model",
        order,
    )
    taken, model = map(int, done.stdout.split())
    assert model > 600 << 20
    assert model * 0.95 < taken < model * 1.05 + (16 << 20)


def test_a_conversion_takes_little_more_memory_than_the_model(tmp_path):
    torch.save({str(i): torch.zeros(8192, 1024, dtype=torch.float16).t() for i in range(40)}, tmp_path / "model.pt")
    done = run_python(
        _BYTES_OF
        + """
import sys, veturboio.convert
before = bytes_of("VmRSS")
assert veturboio.convert.main(["-i", sys.argv[1], "-o", sys.argv[2]]) == 0
print(bytes_of("VmHWM") - before)
""",
        tmp_path / "model.pt",
        tmp_path / "model.safetensors",
    )
    taken = int(done.stdout.splitlines()[-1])
    model = (tmp_path / "model.safetensors").stat().st_size
    assert model > 600 << 20
    assert taken < model * 1.05 + (32 << 20)
