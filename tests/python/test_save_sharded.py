"""Saving a model as several files with an index."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors_files import header_of
from sample_tensors import assert_same
from sfcs_cluster import Folder

import veturboio

INDEX = "model.safetensors.index.json"


def of_bytes(**sizes: int) -> dict[str, torch.Tensor]:
    return {name: torch.full((size,), number, dtype=torch.uint8) for number, (name, size) in enumerate(sizes.items(), 1)}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def split(tensors: dict[str, torch.Tensor], folder: Path, limit: int | str) -> list[list[str]]:
    """The names in each file that a save makes."""
    veturboio.save_sharded(tensors, folder, limit)
    files = [path for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"]
    return [[name for name in header_of(path) if name != "__metadata__"] for path in files]


def test_what_fits_into_one_file_is_one_without_an_index(tmp_path):
    tensors = of_bytes(b=6, a=4)
    veturboio.save_sharded(tensors, tmp_path / "new" / "folder", 10)
    assert names_in(tmp_path / "new" / "folder") == ["model.safetensors"]
    safetensors.torch.save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "new" / "folder" / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()
    veturboio.save_sharded({}, tmp_path / "empty")
    assert names_in(tmp_path / "empty") == ["model.safetensors"]
    assert veturboio.load(tmp_path / "empty" / "model.safetensors") == {}


def test_files_and_index_are_what_transformers_writes(tmp_path):
    tensors = {"ü": torch.arange(3.0), "b": torch.ones(2, 2), "a": torch.ones(1)}
    veturboio.save_sharded(tensors, tmp_path, 20)
    assert (
        (tmp_path / INDEX).read_text()
        == """{
  "metadata": {
    "total_size": 32
  },
  "weight_map": {
    "a": "model-00002-of-00002.safetensors",
    "b": "model-00002-of-00002.safetensors",
    "\\u00fc": "model-00001-of-00002.safetensors"
  }
}
"""
    )
    for file, names in ("model-00001-of-00002.safetensors", ["ü"]), ("model-00002-of-00002.safetensors", ["b", "a"]):
        theirs = safetensors.torch.save({name: tensors[name] for name in names}, metadata={"format": "pt"})
        assert (tmp_path / file).read_bytes() == theirs
    assert len(names_in(tmp_path)) == 3
    assert_same(veturboio.load(tmp_path), tensors)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        # The example in huggingface_hub's documentation: a file of its own for what is too large, without ending the one before.
        ({"a": 6, "b": 6, "c": 2, "d": 6, "e": 2, "f": 2}, [["a"], ["b", "c"], ["d", "e", "f"]]),
        ({"a": 3, "b": 20, "c": 3, "d": 30, "e": 5}, [["b"], ["d"], ["a", "c"], ["e"]]),
        ({"a": 10, "b": 0, "c": 10, "d": 0}, [["a", "b"], ["c", "d"]]),
        ({"a": 11, "b": 11}, [["a"], ["b"]]),
        ({"z": 1, "y": 9, "x": 1}, [["y", "z"], ["x"]]),
    ],
    ids=["documented", "too large", "empty", "only too large", "order"],
)
def test_the_tensors_keep_their_order(tmp_path, sizes, expected):
    assert split(of_bytes(**sizes), tmp_path, 10) == expected


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ("1KB", 1000),
        ("1kb", 1000),
        ("1.5 KB", 1500),
        ("1KiB", 1024),
        (" 0.5KiB ", 512),
        ("700B", 700),
        (700, 700),
        ("0.002MB", 2000),
    ],
)
def test_sizes_are_text_or_a_number(tmp_path, size, fits):
    assert split(of_bytes(a=fits - 1, b=1), tmp_path, size) == [["a", "b"]]
    assert split(of_bytes(a=fits, b=1), tmp_path, size) == [["a"], ["b"]]


@pytest.mark.parametrize("size", ["", "GB", "5", "5XB", "5 G B", "-1GB", "1e3MB", "0GB", 0, -1, "٣GB"])
def test_what_is_no_size_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match="max_shard_size is"):
        veturboio.save_sharded(of_bytes(a=1), tmp_path / "new", size)
    with pytest.raises(TypeError, match="max_shard_size must be an int or text"):
        veturboio.save_sharded(of_bytes(a=1), tmp_path / "new", True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..", "x\0"])
def test_what_is_no_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="has to be the first part of a file's name"):
        veturboio.save_sharded(of_bytes(a=1), tmp_path, name=name)
    assert names_in(tmp_path) == []


def test_another_name_stands_beside(tmp_path):
    veturboio.save_sharded(of_bytes(a=6, b=6), tmp_path, 10)
    veturboio.save_sharded(of_bytes(c=6, d=6), tmp_path, 10, name="adapter.v2")
    assert [name for name in names_in(tmp_path) if name.startswith("adapter")] == [
        "adapter.v2-00001-of-00002.safetensors",
        "adapter.v2-00002-of-00002.safetensors",
        "adapter.v2.safetensors.index.json",
    ]
    assert set(veturboio.load(tmp_path)) == {"a", "b"}
    assert set(veturboio.load(tmp_path / "adapter.v2.safetensors.index.json")) == {"c", "d"}


def test_metadata_are_in_every_file(tmp_path):
    veturboio.save_sharded(of_bytes(a=6, b=6), tmp_path, 10, metadata={"author": "me"})
    for path in tmp_path.glob("*.safetensors"):
        assert header_of(path)["__metadata__"] == {"author": "me", "format": "pt"}
    assert json.loads((tmp_path / INDEX).read_text())["metadata"] == {"total_size": 12}


def test_shared_tensors_are_dealt_with_as_in_one_file(tmp_path):
    shared = torch.arange(6, dtype=torch.uint8)
    tensors = {"z": shared, "x": torch.ones(6, dtype=torch.uint8), "a": shared, "y": torch.zeros(6, dtype=torch.uint8)}
    with pytest.raises(ValueError, match="these tensors share memory: a, z"):
        veturboio.save_sharded(tensors, tmp_path / "refused", 10)
    assert not (tmp_path / "refused").exists()

    veturboio.save_sharded(tensors, tmp_path / "one", 10, force_save_shared_tensor=True)
    index = json.loads((tmp_path / "one" / INDEX).read_text())
    # What the files hold: transformers asks them for each name that is listed.
    assert index["weight_map"] == {name: f"model-0000{i}-of-00003.safetensors" for i, name in enumerate("xay", 1)}
    assert index["metadata"] == {"total_size": 18}
    assert [header_of(path)["__metadata__"] for path in sorted((tmp_path / "one").glob("*.safetensors"))] == [
        {"format": "pt"},
        {"format": "pt", "z": "a"},
        {"format": "pt"},
    ]
    loaded = veturboio.load(tmp_path / "one")
    assert_same(loaded, tensors)
    assert loaded["a"].data_ptr() == loaded["z"].data_ptr()

    veturboio.save_sharded(tensors, tmp_path / "each", 10, force_clone_shared_tensor=True)
    assert json.loads((tmp_path / "each" / INDEX).read_text())["metadata"] == {"total_size": 24}
    assert_same(veturboio.load(tmp_path / "each"), tensors)


def test_parts_of_one_storage_may_be_in_different_files(tmp_path):
    whole = torch.arange(20, dtype=torch.uint8)
    assert split({"head": whole[:9], "tail": whole[9:18]}, tmp_path, 10) == [["head"], ["tail"]]
    assert_same(veturboio.load(tmp_path), {"head": whole[:9], "tail": whole[9:18]})


def test_strided_tensors_are_refused_where_that_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="these tensors are not contiguous: t"):
        veturboio.save_sharded({"a": torch.ones(3), "t": torch.ones(2, 3).t()}, tmp_path, force_contiguous=False)
    veturboio.save_sharded({"a": torch.ones(3), "t": torch.ones(2, 3).t()}, tmp_path, 16)
    assert veturboio.load(tmp_path)["t"].shape == (3, 2)


@pytest.mark.parametrize("before", [1, 2, 3, 5])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_what_an_earlier_save_left_is_removed(tmp_path, before, after):
    others = [
        "config.json",
        "model-1-of-2.safetensors",
        "model-00001-of-00009.safetensors.bak",
        "other-00001-of-00009.safetensors",
    ]
    veturboio.save_sharded({f"old.{i}": torch.zeros(6) for i in range(before)}, tmp_path, 24)
    for name in others:
        (tmp_path / name).write_text("keep")
    tensors = {f"new.{i}": torch.ones(6) for i in range(after)}
    veturboio.save_sharded(tensors, tmp_path, 24)
    of_the_model = [f"model-0000{i + 1}-of-0000{after}.safetensors" for i in range(after)] + [INDEX]
    assert names_in(tmp_path) == sorted([*others, *(of_the_model if after > 1 else ["model.safetensors"])])
    for name in others:
        (tmp_path / name).unlink()
    assert_same(veturboio.load(tmp_path), tensors)


@pytest.mark.parametrize("count", [2, 3])
def test_a_save_that_fails_leaves_the_old_model_and_nothing_else(tmp_path, count):
    old = {f"{i}": torch.zeros(6) for i in range(2)}
    veturboio.save_sharded(old, tmp_path, 24)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    tensors = {f"{i}": torch.ones(6) for i in range(count - 1)} | {"last": torch.ones(6).to_sparse()}
    with pytest.raises(ValueError, match='"last"'):
        veturboio.save_sharded(tensors, tmp_path, 24)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Killed(BaseException):
    """Stands in for SIGKILL: raised by every further step on the directory, so that nobody tidies up."""


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_killed_between_any_two_of_its_steps_it_leaves_one_of_the_models(tmp_path, monkeypatch, before, after):
    """Where both have the same number of files it may leave a mixture, and does only while these take their names."""
    old, new = ({f"{i}": torch.full((6,), value) for i in range(count)} for value, count in ((0.0, before), (1.0, after)))
    steps_left = 0

    def dying(step: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            nonlocal steps_left
            steps_left -= 1
            if steps_left < 0:
                raise Killed
            return step(*arguments, **options)

        return counted

    mixtures = 0
    for steps in itertools.count():
        folder = tmp_path / str(steps)
        veturboio.save_sharded(old, folder, 24)
        with monkeypatch.context() as patch:
            for step in "replace", "unlink":
                patch.setattr(Path, step, dying(getattr(Path, step)))
            steps_left = steps
            killed = False
            try:
                veturboio.save_sharded(new, folder, 24)
            except Killed:
                killed = True
        loaded = veturboio.load(folder)
        values = {float(tensor[0]) for tensor in loaded.values()}
        if not killed:
            break
        if len(values) > 1:
            mixtures += 1
        else:
            assert set(loaded) == set(new if values == {1.0} else old)
    assert_same(loaded, new)
    assert steps >= after + 2  # the probing of the file system, and each file's name
    assert mixtures == (after - 1 if before == after else 0)


def test_where_files_cannot_be_renamed_they_are_written_under_their_names(tmp_path, monkeypatch):
    def refuse(self: Path, target: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(Path, "replace", refuse)
    veturboio.save_sharded(of_bytes(a=6, b=6, c=6), tmp_path, 10)
    tensors = of_bytes(a=6, d=6)
    veturboio.save_sharded(tensors, tmp_path, 10)
    assert len(names_in(tmp_path)) == 3
    assert_same(veturboio.load(tmp_path), tensors)


def test_a_directory_that_cannot_be_is_told_of(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        veturboio.save_sharded(of_bytes(a=1), tmp_path / "file")


def test_progress_is_that_of_all_files(tmp_path, capsys):
    reports: list[tuple[int, int]] = []
    tensors = of_bytes(a=6000, b=6000, c=3000)
    veturboio.save_sharded(tensors, tmp_path, 10_000, progress=lambda done, total: reports.append((done, total)))
    done, total = zip(*reports, strict=True)
    assert set(total) == {15_000}
    assert list(done) == sorted(done)
    assert done[-1] == 15_000
    veturboio.save_sharded(tensors, tmp_path, 10_000, progress=True)
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")
def test_every_file_is_encrypted_and_the_index_is_not(tmp_path):
    secret = {"key": bytes(16), "iv": bytes(16)}
    tensors = of_bytes(a=6, b=6)
    veturboio.save_sharded(tensors, tmp_path, 10, **secret)
    assert set(json.loads((tmp_path / INDEX).read_text())["weight_map"]) == {"a", "b"}
    assert_same(veturboio.load(tmp_path, **secret), tensors)
    with pytest.raises(ValueError, match="model-00001-of-00002"):
        veturboio.load(tmp_path)


def test_remote(sfcs: Folder):
    tensors = of_bytes(a=6, b=6, c=6)
    veturboio.save_sharded(tensors, sfcs.uri(""), 10)
    assert sfcs.names() == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)] + [INDEX]
    assert_same(veturboio.load(sfcs.uri(INDEX)), tensors)
    # Nothing can be removed there: an index remains, and names the one file of the new model.
    fewer = of_bytes(b=6)
    veturboio.save_sharded(fewer, sfcs.uri(""), 10)
    assert_same(veturboio.load(sfcs.uri(INDEX)), fewer)
    assert_same(veturboio.load(sfcs.uri("model.safetensors")), fewer)
