"""Which files a model consists of, by a directory or an index, and which tensors of each are the model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sfcs_cluster import Folder

import veturboio
from veturboio._shards import Shards, names_to_load, shard_files

INDEX = "model.safetensors.index.json"
WEIGHT_MAP = {
    "b": "model-00002-of-00002.safetensors",
    "a": "model-00001-of-00002.safetensors",
    "c": "model-00001-of-00002.safetensors",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of a model in two files, with its index, and of others that are none of its."""
    for file in *WEIGHT_MAP.values(), "other.safetensors", "README.md":
        (tmp_path / file).touch()
    write_index(tmp_path, {"metadata": {"total_size": 12}, "weight_map": WEIGHT_MAP})
    return tmp_path


def write_index(folder: Path, index: object, name: str = INDEX) -> None:
    (folder / name).write_text(index if isinstance(index, str) else json.dumps(index))


@pytest.mark.parametrize("of", ["directory", "index"])
@pytest.mark.parametrize(
    "kind", [Path, str, lambda path: str(path).encode(), lambda path: f"file://{path}"], ids=["Path", "str", "bytes", "uri"]
)
def test_an_index_names_the_files(folder, of, kind):
    shards = shard_files(kind(folder if of == "directory" else folder / INDEX))
    assert shards is not None
    assert shards.files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert list(map(Path, shards.paths())) == [folder / file for file in shards.files]
    assert shards.weight_map == WEIGHT_MAP
    assert shards.metadata == {"total_size": 12}
    assert shards.index == str(folder / INDEX)


def test_an_index_in_the_current_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    shards = shard_files(INDEX)
    assert shards is not None
    assert all(Path(path).samefile(folder / file) for path, file in zip(shards.paths(), shards.files, strict=True))


def test_a_file_is_not_many(folder, tmp_path):
    for file in "model-00001-of-00002.safetensors", "README.md", "missing.safetensors", "missing":
        assert shard_files(tmp_path / file) is None
    assert shard_files("sfcs://folder/model.safetensors") is None


def test_a_directory_without_an_index_has_all_its_files(tmp_path):
    for name in "b.safetensors", "a.safetensors", "c.bin", ".hidden.safetensors", "config.json", "my.index.json":
        (tmp_path / name).touch()
    (tmp_path / "d.safetensors").mkdir()
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    shards = shard_files(tmp_path)
    # The link is among them, so that opening it tells that a part of the model is not there.
    assert shards == Shards(str(tmp_path), ["a.safetensors", "b.safetensors", "gone.safetensors"])
    assert (shards.weight_map, shards.metadata) == (None, {})


def test_parts_beside_the_whole_are_of_another_model(tmp_path):
    for name in "a.safetensors", "a-00001-of-00002.safetensors", "b-00001-of-00002.safetensors", "a-1-of-2.safetensors":
        (tmp_path / name).touch()
    assert shard_files(tmp_path).files == ["a-1-of-2.safetensors", "a.safetensors", "b-00001-of-00002.safetensors"]


def test_of_several_indices_the_usual_one_counts_and_without_it_one_must_be_named(folder):
    write_index(folder, {"weight_map": {"a": "other.safetensors"}}, "other.safetensors.index.json")
    assert shard_files(folder).weight_map == WEIGHT_MAP
    (folder / INDEX).unlink()
    assert shard_files(folder).files == ["other.safetensors"]
    write_index(folder, {"weight_map": {"a": "other.safetensors"}}, "another.safetensors.index.json")
    with pytest.raises(
        ValueError, match=r"several indices.*: another\.safetensors\.index\.json, other\.safetensors\.index\.json"
    ):
        shard_files(folder)


def test_a_directory_without_a_model_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors file and no \*\.safetensors\.index\.json") as caught:
        shard_files(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_every_file_that_is_missing_is_listed(tmp_path):
    (tmp_path / "here").touch()
    write_index(tmp_path, {"weight_map": {"a": "gone-2", "b": "here", "c": "gone-1", "d": "gone-2"}})
    with pytest.raises(FileNotFoundError, match=r"not there: gone-1, gone-2: ") as caught:
        shard_files(tmp_path)
    assert caught.value.filename == str(tmp_path / INDEX)
    with pytest.raises(FileNotFoundError):
        shard_files(tmp_path / "none.index.json")


@pytest.mark.parametrize(
    ("index", "text"),
    [
        ("", "no JSON that can be read"),
        ("{", "no JSON that can be read"),
        ("[" * 100_000, "no JSON that can be read"),
        ('{"weight_map": {"a": "x"}, "weight_map": {}}', 'the key "weight_map" is there more than once'),
        ('{"weight_map": {"a": "x", "\\u0061": "y"}}', 'the key "a" is there more than once'),
        ('{"weight_map": {"a\\n": "x", "a\\n": "y"}}', r'the key "a\\n" is there more than once'),
        ({"weight_map": {"a\n\x1b[2J": 1}}, r'has "a\\n\\x1b\[2J" in 1'),
        ([], 'no "weight_map"'),
        ({"metadata": {}}, 'no "weight_map"'),
        ({"weight_map": ["a"]}, 'no "weight_map"'),
        ({"weight_map": {}, "metadata": 1}, 'the "metadata" of the index is no object'),
        *(
            ({"weight_map": {"fine": "x", "a": file}}, 'has "a" in .*not the name of a file in its directory')
            for file in ("/etc/passwd", "../x", "..", ".", "", "x/y", "x\0", "\ud800", 1, None, ["x"])
        ),
    ],
)
def test_what_is_no_index_is_refused(tmp_path, index, text):
    write_index(tmp_path, index)
    (tmp_path / "x").touch()
    for of in tmp_path, tmp_path / INDEX:
        with pytest.raises(veturboio.FileFormatError, match=text) as caught:
            shard_files(of)
        assert caught.value.filename == str(tmp_path / INDEX)
        assert str(caught.value).startswith(f"{tmp_path / INDEX}: ")
        assert str(caught.value).isprintable()


def test_an_index_that_is_no_text_is_refused(tmp_path):
    (tmp_path / INDEX).write_bytes(b'{"weight_map": {"\xff": "x"}}')
    with pytest.raises(veturboio.FileFormatError, match="no JSON that can be read"):
        shard_files(tmp_path)


def test_an_index_of_any_size_is_not_read(tmp_path):
    with (tmp_path / INDEX).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(veturboio.FileFormatError, match="has 1099511627776 bytes, an index at most 100000000"):
        shard_files(tmp_path)


def test_a_remote_index_is_read_and_a_remote_directory_is_not_listed(sfcs: Folder):
    write_index(sfcs.path, {"weight_map": WEIGHT_MAP})
    shards = shard_files(sfcs.uri(INDEX))
    assert shards is not None
    assert shards.paths() == [sfcs.uri(file) for file in sorted(set(WEIGHT_MAP.values()))]
    with pytest.raises(ValueError, match=f"cannot be listed: give the uri of its index, {sfcs.uri(INDEX)}"):
        shard_files(sfcs.uri(""))
    with pytest.raises(FileNotFoundError):
        shard_files(sfcs.uri("none.index.json"))


def test_the_files_hold_what_the_index_says():
    shards = Shards("dir", ["x", "y"], "dir/index", {"b": "y", "a": "x", "c": "x"})
    assert names_to_load(shards, [["c", "a"], ["b"]]) == [["c", "a"], ["b"]]
    # One of "b" is the model's, and "d" is not.
    assert names_to_load(shards, [["b", "c", "a"], ["d", "b"]]) == [["c", "a"], ["b"]]


def test_every_name_that_a_file_lacks_is_listed():
    shards = Shards("dir", ["x", "y"], "dir/index", {"e": "y", "b": "y", "a": "x", "c": "x"})
    with pytest.raises(veturboio.FileFormatError) as caught:
        names_to_load(shards, [["a", "b"], ["c"]])
    assert str(caught.value) == "dir/index: tensors are not in the files that the index says: x has no c; y has no e, b"
    assert caught.value.filename == "dir/index"


def test_without_an_index_no_name_may_be_in_two_files():
    shards = Shards("dir", ["x", "y"])
    assert names_to_load(shards, [["b", "a"], ["c"]]) == [["b", "a"], ["c"]]
    with pytest.raises(veturboio.FileFormatError, match='dir: "a" is in x and in y, and there is no index') as caught:
        names_to_load(shards, [["b", "a"], ["c", "a"]])
    assert (caught.value.filename, caught.value.tensor) == ("dir/y", "a")


def test_the_index_that_transformers_writes(tmp_path):
    """Sorted keys, both counts, a line's end."""
    veturboio.save_file({"w": torch.ones(2)}, tmp_path / "model-00001-of-00001.safetensors")
    text = """{
  "metadata": {
    "total_parameters": 2,
    "total_size": 8
  },
  "weight_map": {
    "w": "model-00001-of-00001.safetensors"
  }
}
"""
    write_index(tmp_path, text)
    shards = shard_files(tmp_path)
    assert shards is not None
    assert shards.metadata == {"total_parameters": 2, "total_size": 8}
    (path,) = shards.paths()
    assert set(veturboio.load(path)) == {"w"}
