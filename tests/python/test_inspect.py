"""The command that tells what a model holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fresh_process import environment
from safetensors_files import entry, with_header, write_zeros
from sample_tensors import DTYPES, FORMAT_NAMES, one_of_each
from sfcs_cluster import Folder, clean_environment
from test_cipher_command import IV, KEYS, WRONG_KEY, by_openssl, check_without_secrets, cipher_header, set_environment_key

import veturboio
from veturboio import inspect


def run(capfd, *arguments: object, status: int = 0) -> str:
    """What the command prints, to standard output or, when it fails, as one line to standard error."""
    assert inspect.main(list(map(str, arguments))) == status
    out, err = capfd.readouterr()
    if status == 0:
        assert err == ""
        return out
    assert out == ""
    assert err.startswith("veturboio.inspect: ")
    assert err.count("\n") == 1
    return err


def report_of(capfd, *arguments: object) -> dict:
    return json.loads(run(capfd, *arguments, "--json"))


def test_a_table_for_people(tmp_path, capfd):
    tensors = {"layer.weight": torch.zeros(1000, 2), "layer.bias": torch.zeros(1000), "step": torch.tensor(3)}
    veturboio.save_file(tensors, tmp_path / "model", metadata={"format": "pt", "author": "me"})
    assert (
        run(capfd, tmp_path / "model")
        == f"""{tmp_path}/model: safetensors, {(tmp_path / "model").stat().st_size:,} bytes, plain

tensor        dtype  shape      bytes
step          I64    []             8
layer.bias    F32    [1000]     4,000
layer.weight  F32    [1000, 2]  8,000

dtype  tensors  elements   bytes
F32          2     3,000  12,000
I64          1         1       8
total: 3 tensors, 12,008 bytes

metadata:
  author: me
  format: pt
"""
    )


def test_json_for_programs(tmp_path, capfd):
    veturboio.save_file({"b": torch.zeros(3, 2), "a": torch.zeros(())}, tmp_path / "model")
    path = str(tmp_path / "model")
    assert report_of(capfd, path) == {
        "model": path,
        "format": "safetensors",
        "files": [{"file": path, "bytes": Path(path).stat().st_size, "encrypted": False, "cipher_header": None}],
        "metadata": None,
        "tensors": [
            {"name": "a", "dtype": "F32", "shape": [], "bytes": 4, "file": path},
            {"name": "b", "dtype": "F32", "shape": [3, 2], "bytes": 24, "file": path},
        ],
        "dtypes": {"F32": {"tensors": 2, "elements": 7, "bytes": 28}},
        "total": {"tensors": 2, "bytes": 28},
    }


def test_every_dtype_has_its_size(tmp_path, capfd):
    tensors = one_of_each(2, 6)
    veturboio.save_file(tensors, tmp_path / "model")
    report = report_of(capfd, tmp_path / "model")
    sizes = {tensor["dtype"]: tensor["bytes"] for tensor in report["tensors"]}
    assert sizes == {FORMAT_NAMES[dtype]: 12 * dtype.itemsize for dtype in DTYPES}
    assert report["dtypes"]["F4"] == {"tensors": 1, "elements": 24, "bytes": 12}


def test_dtypes_that_pytorch_lacks_are_told_too(tmp_path, capfd):
    header = {"a": entry("F6_E2M3", [4, 2], 0, 6), "b": entry("F6_E3M2", [0], 6, 6)}
    (tmp_path / "model").write_bytes(with_header(header, bytes(6)))
    assert [tensor["bytes"] for tensor in report_of(capfd, tmp_path / "model")["tensors"]] == [6, 0]


def test_several_files_are_one_model(tmp_path, capfd):
    veturboio.save_sharded({name: torch.zeros(4) for name in "abc"}, tmp_path, 16, metadata={"author": "me"})
    for of in tmp_path, tmp_path / "model.safetensors.index.json":
        report = report_of(capfd, of)
        files = [f"{tmp_path}/model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
        assert [file["file"] for file in report["files"]] == files
        assert [(tensor["name"], tensor["file"]) for tensor in report["tensors"]] == list(zip("abc", files, strict=True))
        assert report["metadata"] == {"author": "me", "format": "pt"}
        assert report["total"] == {"tensors": 3, "bytes": 48}


def test_only_headers_are_read(shm_path, capfd):
    write_zeros(shm_path / "model", num_tensors=4, bytes_each=1 << 42)  # 16 TiB
    assert report_of(capfd, shm_path / "model")["total"] == {"tensors": 4, "bytes": 1 << 44}


@pytest.mark.parametrize("of", ["safetensors", "torch", "directory"])
def test_every_byte_is_read_where_that_is_asked_for(tmp_path, monkeypatch, capfd, of):
    monkeypatch.setattr(inspect, "_PIECE_BYTES", 1000)
    tensors = {"a": torch.zeros(700), "b": torch.zeros(700)}
    path = tmp_path / "model"
    if of == "directory":
        veturboio.save_sharded(tensors, path, 2800)
    elif of == "torch":
        torch.save(tensors, path)
    else:
        veturboio.save_file(tensors, path)
    size = sum(file.stat().st_size for file in (path.glob("*.safetensors") if path.is_dir() else [path]))
    assert report_of(capfd, path, "--verify")["verified_bytes"] == size
    structure = "" if of == "torch" else "the structure is right, and "
    assert run(capfd, path, "--verify").endswith(f"\nverified: {structure}all {size:,} bytes can be read\n")
    assert "verified_bytes" not in report_of(capfd, path)


def test_what_cannot_be_read_is_told(tmp_path, monkeypatch, capfd):
    veturboio.save_file({"a": torch.zeros(700)}, tmp_path / "model")

    @contextmanager
    def cutting_short(title: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: os.truncate(tmp_path / "model", 1500)

    monkeypatch.setattr(inspect, "_PIECE_BYTES", 1000)
    monkeypatch.setattr(inspect, "progress_bar", cutting_short)
    assert str(tmp_path / "model") in run(capfd, tmp_path / "model", "--verify", status=1)


@pytest.mark.parametrize("options", [[], ["--verify"], ["--json"]])
def test_what_is_no_model_is_told(tmp_path, capfd, options):
    assert "No such file or directory" in run(capfd, tmp_path / "none", *options, status=1)
    assert "no *.safetensors file" in run(capfd, tmp_path, *options, status=1)
    (tmp_path / "text").write_text("It was a dark and stormy night; the rain fell in torrents.")
    assert str(tmp_path / "text") in run(capfd, tmp_path / "text", *options, status=1)
    (tmp_path / "gap").write_bytes(with_header({"a": entry("U8", [2], 1, 3)}, b"\0\0\0"))
    assert str(tmp_path / "gap") in run(capfd, tmp_path / "gap", *options, status=1)


def test_usage(capfd):
    for arguments in [], ["a", "b"], ["--verif", "a"]:
        with pytest.raises(SystemExit) as caught:
            inspect.main(arguments)
        assert caught.value.code == 2
    assert "usage: python -m veturboio.inspect" in capfd.readouterr().err


def test_a_file_of_torch_save(tmp_path, capfd):
    torch.save(
        {"model": {"w": torch.zeros(2, 3)}, "moments": [torch.zeros(5, dtype=torch.int8)], "step": 3}, tmp_path / "model.pt"
    )
    report = report_of(capfd, tmp_path / "model.pt")
    assert (report["format"], report["metadata"]) == ("torch", None)
    assert [(tensor["name"], tensor["dtype"], tensor["shape"], tensor["bytes"]) for tensor in report["tensors"]] == [
        ("model.w", "float32", [2, 3], 24),
        ("moments.0", "int8", [5], 5),
    ]
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    assert "would run its code" in run(capfd, tmp_path / "module.pt", status=1)


def test_names_do_not_command_a_terminal(tmp_path, capfd):
    name = "a\x1b[2J\n\u202eb\xe9"
    veturboio.save_file({name: torch.zeros(1)}, tmp_path / "model", metadata={"k\r": "v\x07"})
    lines = run(capfd, tmp_path / "model").splitlines()
    assert lines[3].startswith("a\\x1b[2J\\n\\u202eb\xe9  F32")
    assert lines[-1] == "  k\\r: v\\x07"
    assert report_of(capfd, tmp_path / "model")["tensors"][0]["name"] == name


def test_a_reader_that_has_seen_enough_ends_it_in_silence(tmp_path):
    veturboio.save_file({f"{i}": torch.zeros(1) for i in range(20_000)}, tmp_path / "model")
    command = [sys.executable, "-m", "veturboio.inspect", str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(str(tmp_path / "model"))
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.fixture
def key(monkeypatch) -> bytes:
    """Where the command finds it; no secret of another kind is there."""
    clean_environment(monkeypatch)
    monkeypatch.setenv("VETURBOIO_KMS_HOST", "http://127.0.0.1:9")  # where nobody listens
    set_environment_key(monkeypatch, KEYS[32])
    return KEYS[32]


def test_an_encrypted_file_with_a_header_tells_of_it(tmp_path, capfd, key):
    veturboio.save_file({"a": torch.zeros(2)}, tmp_path / "plain")
    content = cipher_header("CTR-256", iv=IV) + by_openssl((tmp_path / "plain").read_bytes(), key)
    (tmp_path / "model").write_bytes(content)
    (file,) = report_of(capfd, tmp_path / "model")["files"]
    assert file == {
        "file": str(tmp_path / "model"),
        "bytes": len(content),
        "encrypted": True,
        "cipher_header": {"mode": "CTR-256", "timestamp": "2024-05-01T12:00:00Z"},
    }
    out = run(capfd, tmp_path / "model", "--verify")
    assert out.startswith(f"{tmp_path}/model: safetensors, {len(content):,} bytes, encrypted, CTR-256, 2024-05-01T12:00:00Z\n")
    assert out.endswith(f"all {(tmp_path / 'plain').stat().st_size:,} bytes can be read\n")
    check_without_secrets(out)


def test_an_encrypted_file_without_a_header_needs_to_be_called_one(tmp_path, monkeypatch, capfd, key):
    veturboio.save_file({"a": torch.zeros(2)}, tmp_path / "model", key=key, iv=IV)
    check_without_secrets(run(capfd, tmp_path / "model", status=1))
    monkeypatch.setenv("VETURBOIO_USE_CIPHER", "1")
    (file,) = report_of(capfd, tmp_path / "model")["files"]
    assert (file["encrypted"], file["cipher_header"]) == (True, None)
    assert ", encrypted\n" in run(capfd, tmp_path / "model")
    set_environment_key(monkeypatch, WRONG_KEY)
    check_without_secrets(run(capfd, tmp_path / "model", status=1))


def test_remote(sfcs: Folder, capfd):
    veturboio.save_sharded({name: torch.zeros(4) for name in "ab"}, sfcs.uri(""), 16)
    uri = sfcs.uri("model.safetensors.index.json")
    report = report_of(capfd, uri, "--verify")
    assert report["model"] == uri
    assert report["total"] == {"tensors": 2, "bytes": 32}
    assert report["verified_bytes"] == sum(path.stat().st_size for path in sfcs.path.glob("*.safetensors"))
