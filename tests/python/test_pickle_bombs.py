"""Files of torch.save may hold code that runs where they are unpickled. Whatever is done with such a file, none of it runs."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import veturboio
import veturboio.safetensors.torch
from veturboio import cipher, convert, inspect

KEY = base64.b64encode(bytes(range(16))).decode()


class Bomb:
    """Runs a command of the shell where it is unpickled, as any file from elsewhere may."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.marker}'",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it went off"


def saved(value: Any, path: Path, *, zipped: bool) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture(params=["zip", "legacy", "plain pickle", "zip, encrypted", "legacy, encrypted"])
def bomb(request: pytest.FixtureRequest, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    value = {"w": torch.ones(2), "bad": Bomb(marker)}
    path = tmp_path / "model.pt"
    if request.param == "plain pickle":
        path.write_bytes(pickle.dumps(value["bad"], protocol=2) + bytes(64))
        return path
    saved(value, path, zipped="zip" in request.param)
    if "encrypted" in request.param:
        monkeypatch.setenv("VETURBOIO_KEY", KEY)
        monkeypatch.setenv("VETURBOIO_IV", KEY)
        monkeypatch.setenv("DATAPIPE_SOCKET_PATH", "/nonexistent/datapipe.sock")
        plain = path.rename(tmp_path / "plain.pt")
        assert cipher.main(["encrypt", "-i", str(plain), "-o", str(path)]) == 0
        plain.unlink()
        monkeypatch.setenv("VETURBOIO_USE_CIPHER", "1")
    return path


def load_by_index(file: Path) -> Any:
    index = file.with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"w": file.name}}))
    return veturboio.load(index)


def load_directory(file: Path) -> Any:
    file.rename(file.with_name("model.safetensors"))
    return veturboio.load(file.parent)


def load_shared(file: Path) -> Any:
    memory = veturboio.load_to_shmem(file)
    try:
        return veturboio.load(Path("/dev/shm", memory.name), use_cipher=False)  # it holds the plain file
    finally:
        memory.close()
        memory.unlink()


def load_patched(file: Path) -> Any:
    with veturboio.patch_safetensors():
        return safetensors.torch.load_file(file)


def open_patched(file: Path) -> Any:
    with veturboio.patch_safetensors(), safetensors.safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def run_command(main: Callable[[list[str]], int], *arguments: str) -> Callable[[Path], None]:
    def run(file: Path) -> None:
        filled = [argument.format(input=file, output=file.with_name("out.safetensors")) for argument in arguments]
        if main(filled) != 0:
            raise SystemExit("the command fails")

    return run


WAYS: dict[str, Callable[[Path], Any]] = {
    "load": veturboio.load,
    "load, mapped": lambda file: veturboio.load(file, mmap=True),
    "load, the slow way": lambda file: veturboio.load(file, enable_fast_mode=False),
    "load to no device": lambda file: veturboio.load(file, "meta"),
    "load into tensors": lambda file: veturboio.load(file, state_dict={"w": torch.zeros(2)}),
    "load some names": lambda file: veturboio.load(file, names=["w"]),
    "load by an index": load_by_index,
    "load a directory": load_directory,
    "load_to_shmem": load_shared,
    "load_async": lambda file: veturboio.load_async(file).result(),
    "load_into": lambda file: veturboio.load_into(torch.nn.Linear(2, 2), file),
    "stream": lambda file: dict(veturboio.stream(file)),
    "open": lambda file: veturboio.open(file).tensors(),
    "convert": run_command(convert.main, "-i", "{input}", "-o", "{output}"),
    "describe": inspect.describe,
    "inspect": run_command(inspect.main, "{input}"),
    "drop-in load_file": veturboio.safetensors.torch.load_file,
    "drop-in load": lambda file: veturboio.safetensors.torch.load(file.read_bytes()),
    "drop-in load_model": lambda file: veturboio.safetensors.torch.load_model(torch.nn.Linear(2, 2), file),
    "drop-in safe_open": lambda file: veturboio.safetensors.safe_open(file, "pt").keys(),
    "patched load_file": load_patched,
    "patched safe_open": open_patched,
}


REFUSALS = (
    "Weights only load failed",
    "a file of torch.save",  # which this way does not take at all
    "a file of it is not what its name says",
    "not a safetensors file",  # ciphertext, given as bytes
    "mmap can only be used with files saved with",  # of a plain pickle
    "the command fails",
)


@pytest.mark.parametrize("way", WAYS)
def test_a_bomb_does_not_go_off(bomb, marker, way):
    with pytest.raises((Exception, SystemExit), match="|".join(REFUSALS)):
        WAYS[way](bomb)
    assert not marker.exists()
    assert not bomb.with_name("out.safetensors").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_the_bomb_is_one(tmp_path, marker, zipped):
    torch.load(saved({"bad": Bomb(marker)}, tmp_path / "model.pt", zipped=zipped), weights_only=False)
    assert marker.exists()
