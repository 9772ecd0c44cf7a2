"""The compiled library as a thing to install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import veturboio

PACKAGE = Path(veturboio.__file__).parent


def run(program: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        (f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else "") + program,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_uses_nothing_of_pythons_interface():
    """So that one build serves every Python."""
    symbols = subprocess.run(["nm", "-D", "--undefined-only", veturboio.library_path], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in symbols.stdout.splitlines()]
    assert any("c10" in name for name in names)
    assert [name for name in names if name.startswith(("Py", "_Py"))] == []


def test_imports_without_a_warning():
    result = run("import veturboio; print(veturboio.__version__)")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{veturboio.__version__}\n", "")


def test_has_its_types():
    assert (PACKAGE / "py.typed").exists()


def test_knows_what_it_was_built_for():
    assert torch.ops.veturbo.build_info()["torch"] == torch.__version__.partition("+")[0]


@pytest.fixture
def copied_package(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "veturboio", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_says_that_it_was_not_built(copied_package):
    (copied_package / "veturboio" / "lib" / "libveturboio.so").unlink()
    result = run("import veturboio", copied_package)
    assert "libveturboio.so is missing: the package was not built" in result.stderr


def test_says_that_it_was_built_for_another_pytorch(copied_package):
    result = run("import torch; torch.__version__ = '2.0.1+cpu'; import veturboio", copied_package)
    assert "but 2.0.1+cpu is installed" in result.stderr


def test_says_that_it_does_not_load(copied_package):
    (copied_package / "veturboio" / "lib" / "libveturboio.so").write_bytes(b"no library")
    result = run("import veturboio", copied_package)
    assert "does not load into PyTorch" in result.stderr
