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
from fakes.build import building
from fakes.kms import FakeKms
from fakes.trusted_service import FakeTrustedService

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
    with building():
        if path.exists():
            return path
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


def run(program, folder, variables, folder_of_models=None):
    torch.jit.script(LoadsAndSaves()).save(folder / "scripted.pt")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VETURBOIO_"))}
    result = subprocess.run(
        [program, veturboio.library_path, folder / "scripted.pt", folder_of_models or folder],
        capture_output=True,
        text=True,
        env=environment | variables,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "passed\n"), result.stderr


def test_a_cpp_program_loads_saves_and_runs_a_scripted_module(program, tmp_path):
    run(program, tmp_path, {})


@pytest.mark.parametrize("with_service", [False, True], ids=["KMS", "KMS by way of the trusted service"])
def test_the_same_program_with_encrypted_models(program, tmp_path, with_service):
    with FakeKms() as kms, FakeTrustedService(kms=kms) as service:
        variables = kms.environment(credentials=not with_service) | {"DATAPIPE_SOCKET_PATH": str(tmp_path / "none")}
        if with_service:
            variables |= service.environment()
        run(program, tmp_path, variables | {"VETURBOIO_USE_CIPHER": "1", "VETURBOIO_CIPHER_HEADER": "1"})
    for name in ("model.safetensors", "copy.safetensors"):
        assert (tmp_path / name).read_bytes().startswith(b"Byte3ncryptM0del")


def test_the_same_program_in_sfcs(program, tmp_path, sfcs):
    variables = sfcs.cluster.environment()
    run(program, tmp_path, variables, folder_of_models=f"sfcs://{sfcs.name}")
    assert sfcs.names() == ["copy.safetensors", "model.safetensors"]
    assert not sfcs.cluster.left_open()
