"""Loads to an accelerator and saves from it, on a simulated one, in processes of their own.

The simulated accelerator would be that of all other tests in this process as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


# test_gpu.py is meant for real devices. That it passes here says that it is right, not that they are.
@pytest.mark.parametrize("files", ["accelerator_*.py", "test_gpu.py"])
def test_on_a_simulated_accelerator(files: str) -> None:
    environment = dict(os.environ, VETURBOIO_REQUIRE_GPU="1", PYTHONFAULTHANDLER="1")
    folders = [str(HERE), str(HERE.parent), str(HERE.parents[1]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    plugins = ["-p", "fake_accelerator", "-p", "accelerator_support", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *map(str, sorted(HERE.glob(files)))]
    tests = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=600)
    if tests.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{tests.stdout}{tests.stderr}", pytrace=False)
