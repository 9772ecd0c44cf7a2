"""The operators in TorchScript, also in a process that has only the library."""

from __future__ import annotations

import subprocess
import sys
from typing import Optional

import pytest
import torch

import veturboio


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.helper = torch.classes.veturbo.IOHelper()

    def forward(self, file: str, copy: str, names: Optional[list[str]] = None) -> dict[str, torch.Tensor]:  # noqa: UP045
        tensors = torch.ops.veturbo.load_file(file, device="cpu", num_threads=2, names=names, helper=self.helper)
        torch.ops.veturbo.save_file(tensors, copy, metadata=torch.ops.veturbo.read_metadata(file))
        return tensors


@pytest.fixture
def file(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
    veturboio.save_file(tensors, tmp_path / "in.safetensors", metadata={"format": "pt"})
    return tmp_path / "in.safetensors"


PROGRAM = """
import sys
import torch
library, module, file, copy = sys.argv[1:]
torch.ops.load_library(library)
tensors = torch.jit.load(module)(file, copy)
assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3)) and tensors["b"].tolist() == [1, 2]
assert "veturboio" not in sys.modules
"""


def test_a_saved_module_runs_in_a_process_that_has_only_the_library(tmp_path, file):
    torch.jit.script(Model()).save(tmp_path / "model.pt")
    arguments = [veturboio.library_path, tmp_path / "model.pt", file, tmp_path / "copy"]
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments], check=True)
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()


def test_a_save_whose_result_nobody_uses_is_not_optimised_away(tmp_path, file):
    @torch.jit.script
    def save(file: str, copy: str) -> int:
        torch.ops.veturbo.save_file(torch.ops.veturbo.load_file(file), copy)
        return 1

    for i in range(4):  # the profiling executor optimises after some runs
        assert save(str(file), str(tmp_path / f"copy{i}")) == 1
        assert (tmp_path / f"copy{i}").exists()


def test_two_loads_of_one_file_are_two_loads(file):
    @torch.jit.script
    def load_twice(file: str) -> tuple[torch.Tensor, torch.Tensor]:
        first = torch.ops.veturbo.load_file(file)
        second = torch.ops.veturbo.load_file(file)
        return first["a"], second["a"]

    for _ in range(4):
        first, second = load_twice(str(file))
        first.zero_()
        assert torch.equal(second, torch.arange(6.0).reshape(2, 3))


def test_loads_in_place_and_lists(file):
    @torch.jit.script
    def load(file: str, tensors: dict[str, torch.Tensor]) -> tuple[list[str], list[str], list[list[int]]]:
        torch.ops.veturbo.load_file_(tensors, file)
        return torch.ops.veturbo.list_tensors(file)

    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(2, dtype=torch.int64)}
    assert load(str(file), tensors) == (["b", "a"], ["I64", "F32"], [[2], [2, 3]])
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))


def test_only_the_named_tensors_are_loaded(tmp_path, file):
    assert list(torch.jit.script(Model())(str(file), str(tmp_path / "copy"), ["a"])) == ["a"]


def test_a_job_can_be_waited_for_in_a_script(file):
    @torch.jit.script
    def load(file: str) -> tuple[bool, int, int, torch.Tensor]:
        job = torch.ops.veturbo.start_load(file)
        ended = job.wait(-1.0)
        done, total = job.progress()
        return ended, done, total, job.result()["a"]

    ended, done, total, tensor = load(str(file))
    assert (ended, done, total) == (True, 40, 40)
    assert torch.equal(tensor, torch.arange(6.0).reshape(2, 3))


def test_an_error_reaches_the_caller_of_the_script():
    @torch.jit.script
    def load(file: str) -> dict[str, torch.Tensor]:
        return torch.ops.veturbo.load_file(file)

    with pytest.raises(RuntimeError, match="/no/such/file: No such file or directory"):
        load("/no/such/file")
