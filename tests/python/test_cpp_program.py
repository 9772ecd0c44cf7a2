"""A C++ program that uses the operators through libtorch, without Python."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths, library_paths

import veturboio

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "cpp" / "libtorch_program.cpp"


class LoadsAndSaves(torch.nn.Module):
    def forward(self, file: str, copy: str) -> dict[str, torch.Tensor]:
        tensors = torch.ops.veturbo.load_file(file, num_threads=2)
        torch.ops.veturbo.save_file(tensors, copy)
        return tensors


@pytest.fixture(scope="module")
def program() -> Path:
    """The compiled program. It takes half a minute, so it is kept until its source or PyTorch changes."""
    key = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    path = ROOT / "build" / "libtorch_program" / key
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        command = ["g++", "-std=c++20", "-O0", "-o", str(unfinished), str(SOURCE)]
        command += [flag for folder in include_paths() for flag in ("-isystem", folder)]
        command += [flag for folder in library_paths() for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
        # PyTorch's registrations are in libtorch_cpu, of which the program itself uses little.
        command += ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10", "-ldl"]
        subprocess.run(command, check=True)
        unfinished.replace(path)
    return path


def test_a_cpp_program_loads_saves_and_runs_a_scripted_module(program, tmp_path):
    torch.jit.script(LoadsAndSaves()).save(tmp_path / "scripted.pt")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [program, veturboio.library_path, tmp_path / "scripted.pt", tmp_path],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "passed\n"), result.stderr
