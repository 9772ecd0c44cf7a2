"""The peers that the bench compares with, each in a virtual environment of its own under build/peers.

An environment is laid over the one that this runs in: PyTorch, which is large and which all have to share for a fair comparison,
is not installed again. What a peer brings hides what is there, so two releases of safetensors can be compared, and the
environment that this runs in is left as it is.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

_BUILD = Path(__file__).resolve().parent.parent / "build" / "peers"

# The name of an environment, what is installed in it, and what has to be importable then.
PEERS = {
    "safetensors 0.8": ("safetensors==0.8.0", "safetensors.torch"),
    "safetensors 0.9": ("safetensors==0.9.0rc1", "safetensors.torch"),
    "fastsafetensors": ("fastsafetensors==0.5.0", "fastsafetensors"),
    "runai streamer": ("runai-model-streamer==0.17.0", "runai_model_streamer"),
    "instanttensor": ("instanttensor==0.2.2", "instanttensor"),
    "tensorizer": ("tensorizer==2.12.1", "tensorizer"),
    "plot": ("matplotlib==3.11.2", "matplotlib"),
}


def python(environment: str | None) -> str:
    """The Python to run what belongs to an environment with."""
    return str(_folder(environment) / "bin" / "python") if environment else sys.executable


def requirement(environment: str) -> str:
    return PEERS[environment][0]


def set_up(environment: str) -> str | None:
    """Makes the environment if it is not there as it should be. Returns why it cannot be used, or None when it can."""
    package, module = PEERS[environment]
    folder = _folder(environment)
    below = sysconfig.get_path("purelib")
    wanted = f"{package}\n{below}\n"
    stamp = folder / "ready"
    if not (stamp.exists() and stamp.read_text() == wanted):
        venv.create(folder, clear=True, symlinks=True)
        for own in folder.glob("lib/python*/site-packages"):
            (own / "below.pth").write_text(below + "\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python(environment)]
        if (reason := _failure([*pip, "install", "--quiet", package])) is not None:
            return f"pip does not install {package}: {reason}"
    if (reason := _failure([python(environment), "-c", f"import torch, {module}"])) is not None:
        return f"{package} cannot be imported: {reason}"
    stamp.write_text(wanted)
    return None


def _folder(environment: str) -> Path:
    return _BUILD / environment.replace(" ", "-")


def _failure(command: list[str]) -> str | None:
    """The last line of what a command says when it fails; None when it does not."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
