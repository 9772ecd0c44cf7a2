"""SFCS as any other storage: every kind of save comes back by every kind of load, plain and encrypted."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from sfcs_cluster import Folder

import veturboio
from fakes.cloudfs import ACCESS_KEY, NAME_NODE, SECRET_KEY, SETTINGS
from veturboio import cipher, convert

KEYS = {"plain": {}, "CTR-128": {"key": bytes(16), "iv": bytes(range(16))}, "CTR-256": {"key": bytes(32), "iv": bytes(range(16))}}
pytestmark = pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")


def tensors() -> dict[str, torch.Tensor]:
    """Some 24 MB: several chunks and, in the stand-in's blocks of 1 MiB, several parts; and many small ones."""
    generator = torch.Generator().manual_seed(5)
    return {
        "large": torch.randn(5000, 1003, generator=generator),
        "half": torch.randn(999, 1001, generator=generator).to(torch.bfloat16),
        "empty": torch.empty(0, 4),
        **{f"small.{i}": torch.arange(i) for i in range(200)},
    }


def assert_same(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype for name, tensor in expected.items())


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_a_file_that_was_saved_is_loaded(sfcs: Folder, key):
    expected = tensors()
    veturboio.save_file(expected, sfcs.uri("model.safetensors"), **key)
    assert_same(veturboio.load(sfcs.uri("model.safetensors"), **key), expected)
    assert sfcs.names() == ["model.safetensors"]


def test_the_bytes_are_those_of_a_local_file(sfcs: Folder, tmp_path):
    veturboio.save_file(tensors(), sfcs.uri("model.safetensors"))
    veturboio.save_file(tensors(), tmp_path / "model.safetensors")
    assert (sfcs.path / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_a_file_of_torch_save(sfcs: Folder, key):
    expected = tensors()
    veturboio.save_pt(expected, sfcs.uri("model.pt"), **key)
    loaded = veturboio.load(sfcs.uri("model.pt"), **key)
    assert_same(loaded, expected)
    loaded["large"].zero_()  # the tensors are the user's own
    assert_same(veturboio.load(sfcs.uri("model.pt"), **key), expected)
    assert sfcs.names() == ["model.pt"]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_a_large_file_of_torch_save_is_written_in_parts(sfcs: Folder, key):
    """Of 64 MiB: the third is not whole."""
    expected = {"a": torch.arange(40_000_000, dtype=torch.int32)}
    veturboio.save_pt(expected, sfcs.uri("model.pt"), **key)
    assert_same(veturboio.load(sfcs.uri("model.pt"), **key), expected)
    assert sfcs.names() == ["model.pt"]


def test_a_file_of_torch_save_before_1_6(sfcs: Folder):
    torch.save(tensors(), sfcs.path / "old.pt", _use_new_zipfile_serialization=False)
    assert_same(veturboio.load(sfcs.uri("old.pt")), tensors())


def test_a_model(sfcs: Folder):
    model = torch.nn.Linear(300, 200)
    veturboio.save_model(model, sfcs.uri("model.safetensors"))
    other = torch.nn.Linear(300, 200)
    veturboio.load(sfcs.uri("model.safetensors"), state_dict=other.state_dict())
    assert torch.equal(model.weight, other.weight)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_shared_memory(sfcs: Folder, key):
    veturboio.save_file(tensors(), sfcs.uri("model.safetensors"), **key)
    veturboio.save_file(tensors(), sfcs.uri("plain.safetensors"))
    memory = veturboio.load_to_shmem(sfcs.uri("model.safetensors"), **key)
    try:
        expected = (sfcs.path / "plain.safetensors").read_bytes()
        assert bytes(memory.buf[: len(expected)]) == expected
    finally:
        memory.close()
        memory.unlink()


def test_the_operators(sfcs: Folder):
    torch.ops.veturbo.save_file(tensors(), sfcs.uri("model.safetensors"), metadata={"format": "pt"})
    assert_same(torch.ops.veturbo.load_file(sfcs.uri("model.safetensors")), tensors())
    assert torch.ops.veturbo.read_metadata(sfcs.uri("model.safetensors")) == {"format": "pt"}
    assert not torch.ops.veturbo.is_local(sfcs.uri("model.safetensors"))


def test_some_of_the_tensors(sfcs: Folder):
    veturboio.save_file(tensors(), sfcs.uri("model.safetensors"))
    loaded = torch.ops.veturbo.load_file(sfcs.uri("model.safetensors"), names=["half", "small.7"])
    assert_same(loaded, {name: tensors()[name] for name in ("half", "small.7")})


def test_an_empty_state_dict(sfcs: Folder):
    veturboio.save_file({}, sfcs.uri("model.safetensors"))
    assert veturboio.load(sfcs.uri("model.safetensors")) == {}


def test_every_path_is_in_sfcs_when_the_environment_says_so(sfcs: Folder, shm_path, monkeypatch):
    monkeypatch.setenv("VETURBOIO_USE_SFCS_SDK", "1")
    veturboio.save_file(tensors(), f"/{sfcs.name}/model.safetensors")
    assert sfcs.names() == ["model.safetensors"]
    assert_same(veturboio.load(f"/{sfcs.name}/model.safetensors"), tensors())
    veturboio.save_file(tensors(), shm_path / "model.safetensors")
    assert (shm_path / "model.safetensors").exists()
    veturboio.save_file(tensors(), f"file://{sfcs.path}/local.safetensors")
    assert (sfcs.path / "local.safetensors").exists()


def test_convert_reads_and_writes(sfcs: Folder, tmp_path, capsys):
    torch.save(tensors(), sfcs.path / "model.pt")
    arguments = ["-i", sfcs.uri("model.pt"), "-o", sfcs.uri("model.safetensors")]
    assert convert.main([*arguments, "--validate-result"]) == 0
    assert_same(veturboio.load(sfcs.uri("model.safetensors")), tensors())
    assert convert.main(arguments) == 1
    assert f"{sfcs.uri('model.safetensors')} exists" in capsys.readouterr().err
    assert convert.main(["-i", sfcs.uri("model.safetensors"), "-o", str(tmp_path / "out")]) == 1
    assert "is a safetensors file already" in capsys.readouterr().err
    assert convert.main(["-i", sfcs.uri("missing.pt"), "-o", str(tmp_path / "out")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_the_cipher_command_reads_and_writes(sfcs: Folder, tmp_path, capsys):
    (tmp_path / "key").write_bytes(bytes(16))
    (tmp_path / "iv").write_bytes(bytes(range(16)))
    keys = ["--key-file", str(tmp_path / "key"), "--iv-file", str(tmp_path / "iv")]
    veturboio.save_file(tensors(), sfcs.uri("plain"))
    assert cipher.main(["encrypt", "-i", sfcs.uri("plain"), "-o", sfcs.uri("encrypted"), *keys]) == 0
    assert (sfcs.path / "encrypted").read_bytes() != (sfcs.path / "plain").read_bytes()
    assert cipher.main(["decrypt", "-i", sfcs.uri("encrypted"), "-o", sfcs.uri("again"), *keys]) == 0
    assert (sfcs.path / "again").read_bytes() == (sfcs.path / "plain").read_bytes()
    assert cipher.main(["decrypt", "-i", sfcs.uri("encrypted"), "-o", sfcs.uri("again"), *keys]) == 1
    assert "exists: pass --overwrite" in capsys.readouterr().err
    assert sfcs.names() == ["again", "encrypted", "plain"]


def test_what_is_not_there(sfcs: Folder):
    with pytest.raises(FileNotFoundError, match="cfsGetPathInfo: No such file or directory") as caught:
        veturboio.load(sfcs.uri("missing"))
    assert caught.value.filename == sfcs.uri("missing")
    with pytest.raises(IsADirectoryError):
        veturboio.load(f"sfcs://{sfcs.name}")
    with pytest.raises(IsADirectoryError):
        veturboio.save_file({}, f"sfcs://{sfcs.name}")
    for state_dict in ({}, tensors()):  # in one part, and in several
        with pytest.raises(FileNotFoundError, match=f"there is no directory /{sfcs.name}/nowhere"):
            veturboio.save_file(state_dict, sfcs.uri("nowhere/model"))
    assert sfcs.names() == []


def test_a_file_cannot_be_mapped(sfcs: Folder):
    veturboio.save_file(tensors(), sfcs.uri("model"))
    torch.save(tensors(), sfcs.path / "model.pt")
    for name in ("model", "model.pt"):
        with pytest.raises(ValueError, match="cannot be mapped into memory"):
            veturboio.load(sfcs.uri(name), mmap=True)


def test_a_uri_that_pathlib_has_shortened_is_refused(sfcs: Folder):
    for call in (lambda file: veturboio.load(file), lambda file: veturboio.save_file({}, file)):
        with pytest.raises(ValueError, match=r"sfcs:/a/b: a pathlib.Path keeps one slash of the two after a scheme"):
            call(Path("sfcs://a/b"))


def test_an_empty_file_is_named(sfcs: Folder, tmp_path, capsys):
    (sfcs.path / "empty").touch()
    assert convert.main(["-i", sfcs.uri("empty"), "-o", str(tmp_path / "out")]) == 1
    assert f"{sfcs.uri('empty')}: the file is empty" in capsys.readouterr().err


def test_parts_are_written_where_the_environment_says(sfcs: Folder, monkeypatch):
    (sfcs.path / "parts").mkdir()
    monkeypatch.setenv("SFCS_CONCAT_DIR", f"/{sfcs.name}/parts")
    job = torch.ops.veturbo.start_save(tensors(), sfcs.uri("model"))
    job.result()
    assert_same(veturboio.load(sfcs.uri("model")), tensors())
    assert sfcs.names() == ["model", "parts"]


def test_a_configuration_file_and_files_of_credentials(sfcs: Folder, tmp_path, monkeypatch):
    settings = {name: os.environ[name] for name in SETTINGS}
    for name in (*SETTINGS, "SFCS_ACCESS_KEY", "SFCS_SECRET_KEY", "SFCS_NAMENODE_ENDPOINT_ADDRESS"):
        monkeypatch.delenv(name)
    policy = {
        "mount_path": "/mnt/models",
        "cache_prefix": f"/{sfcs.name}",
        "authentication_service_name": settings["SFCS_AUTHENTICATION_SERVICE_NAME"],
        "enable_dns": False,
        "sfcs_fs_name": settings["SFCS_FSNAME"],
        "region": settings["SFCS_REGION"],
        "ufs_path": settings["SFCS_UFS_PATH"],
        "ns_id": settings["SFCS_NS_ID"],
        "name_node_endpoint": NAME_NODE,
    }
    (tmp_path / "SFCSConfiguration.json").write_text(json.dumps({"cache_policies": {"/mnt/models": policy}}))
    (tmp_path / "MLP_ACCESS_KEY").write_text(ACCESS_KEY)
    (tmp_path / "MLP_SECRET_KEY").write_text(SECRET_KEY)
    monkeypatch.setenv("SFCS_METAINFO_PATH", str(tmp_path / "SFCSConfiguration.json"))
    monkeypatch.setenv("CREDENTIAL_PATH", str(tmp_path))
    monkeypatch.setenv("MLP_RDMA_NETWORK_SEGMENT", settings["SFCS_NETWORK_SEGMENT"])
    veturboio.save_file(tensors(), "sfcs://mnt/models/model")
    assert sfcs.names() == ["model"]
    monkeypatch.setenv("VETURBOIO_USE_SFCS_SDK", "1")
    assert_same(veturboio.load(Path("/mnt/models/model")), tensors())


def test_a_read_only_file_is_not_replaced(sfcs: Folder):
    veturboio.save_file(tensors(), sfcs.uri("model"))
    (sfcs.path / "model").chmod(0o444)
    with pytest.raises(PermissionError):
        veturboio.save_file({}, sfcs.uri("model"))
    (sfcs.path / "model").chmod(0o600)
    with pytest.warns(UserWarning, match="SFCS does not set modes"):
        veturboio.save_file({}, sfcs.uri("model"))


def test_a_damaged_file(sfcs: Folder):
    veturboio.save_file(tensors(), sfcs.uri("model"))
    whole = (sfcs.path / "model").read_bytes()
    (sfcs.path / "model").write_bytes(whole[:-1])
    with pytest.raises(veturboio.FileFormatError, match="model"):
        veturboio.load(sfcs.uri("model"))


def test_a_failed_save_leaves_the_old_file_and_nothing_else(sfcs: Folder):
    veturboio.save_file({"old": torch.ones(3)}, sfcs.uri("model"))
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        veturboio.save_pt({"a": lambda: None}, sfcs.uri("model"))
    part = torch.ones(3 << 20, dtype=torch.uint8)
    job = torch.ops.veturbo.start_write([part, part], [0, part.nbytes], sfcs.uri("model"), late=[1])  # waits for the second
    job.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        job.result()
    del job
    assert sfcs.names() == ["model"]
    assert_same(veturboio.load(sfcs.uri("model")), {"old": torch.ones(3)})
