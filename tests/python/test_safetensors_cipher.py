"""The drop-in and encrypted files, whose keys come from the environment."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from sample_tensors import assert_same, one_of_each
from torch import nn

import veturboio
from veturboio.safetensors import SafetensorError, safe_open, serialize_file
from veturboio.safetensors.torch import load, load_file, load_model, save, save_file, save_model

pytestmark = pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")

TENSORS = {
    "large": torch.arange(300_000.0).reshape(300, 1000),
    "small": torch.arange(7),
    "empty": torch.empty(0, 3),
    **one_of_each(3),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("VETURBOIO_", "VETUROIO_", "DATAPIPE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATAPIPE_SOCKET_PATH", "/nonexistent/datapipe.sock")
    monkeypatch.setenv("VETURBOIO_DATAPIPE_RETRY", "1")
    monkeypatch.setenv("VETURBOIO_USE_CIPHER", "1")
    monkeypatch.setenv("VETURBOIO_KEY", base64.b64encode(bytes(range(16))).decode())
    monkeypatch.setenv("VETURBOIO_IV", base64.b64encode(bytes(range(100, 116))).decode())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def encrypted():
    save_file(TENSORS, "encrypted", {"format": "pt"})
    assert b"data_offsets" not in Path("encrypted").read_bytes()
    return "encrypted"


def test_load_file(encrypted):
    assert_same(load_file(encrypted), TENSORS)
    assert_same(veturboio.load(encrypted), TENSORS)


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_safe_open(encrypted, backend):
    with safe_open(encrypted, "pt", backend=backend) as file:
        assert file.keys() == sorted(TENSORS)
        assert file.metadata() == {"format": "pt"}
        assert_same({name: file.get_tensor(name) for name in file.keys()}, TENSORS)  # noqa: SIM118
        assert_same(file.get_tensors(), TENSORS)
        assert torch.equal(file.get_slice("large")[7:11, ::3], TENSORS["large"][7:11, ::3])
        with file.prefetch({"large": slice(250, None), "small": None}) as loader:
            assert_same(dict(loader), {"large": TENSORS["large"][250:], "small": TENSORS["small"]})


def test_models():
    model = nn.Linear(40, 30)
    save_model(model, "model")
    other = nn.Linear(40, 30)
    load_model(other, "model")
    assert_same(other.state_dict(), model.state_dict())


def test_serialize_file():
    serialize_file({}, "none")
    assert Path("none").read_bytes() != save({})
    assert load_file("none") == {}


def test_bytes_are_never_encrypted():
    content = save(TENSORS)
    assert_same(safetensors.torch.load_file(Path("plain").write_bytes(content) and "plain"), TENSORS)
    assert_same(load(content), TENSORS)


def test_a_key_that_nobody_has(encrypted, monkeypatch):
    monkeypatch.delenv("VETURBOIO_KEY")
    for opened in (lambda: load_file(encrypted), lambda: safe_open(encrypted, "pt")):
        with pytest.raises(veturboio.CipherKeyError, match="VETURBOIO_KEY"):
            opened()


def test_a_wrong_key(encrypted, monkeypatch):
    monkeypatch.setenv("VETURBOIO_KEY", base64.b64encode(bytes(16)).decode())
    with pytest.raises(veturboio.CipherKeyError):
        load_file(encrypted)


def test_without_the_switch_an_encrypted_file_is_no_safetensors_file(encrypted, monkeypatch):
    monkeypatch.delenv("VETURBOIO_USE_CIPHER")
    with pytest.raises(SafetensorError):
        load_file(encrypted)
