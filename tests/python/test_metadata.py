"""Reading what a file holds without its data: read_metadata and list_tensors."""

from __future__ import annotations

import torch
from safetensors_files import entry, with_header, write_zeros
from sample_tensors import DTYPES, FORMAT_NAMES, one_of_each

import veturboio


def read_metadata(path):
    return torch.ops.veturbo.read_metadata(str(path))


def list_tensors(path):
    return torch.ops.veturbo.list_tensors(str(path))


def test_metadata_are_read_as_they_were_saved(tmp_path):
    metadata = {"format": "pt", "": "", "ключ": 'wert "ü"\n\x00\U0001f600', "long": "x" * 100_000}
    veturboio.save_file({"w": torch.ones(1)}, tmp_path / "model", metadata=metadata)
    assert read_metadata(tmp_path / "model") == metadata


def test_a_file_without_metadata_has_none(tmp_path):
    veturboio.save_file({"w": torch.ones(1)}, tmp_path / "without")
    veturboio.save_file({"w": torch.ones(1)}, tmp_path / "empty", metadata={})
    assert read_metadata(tmp_path / "without") == read_metadata(tmp_path / "empty") == {}


def test_metadata_may_be_written_with_escapes(tmp_path):
    (tmp_path / "model").write_bytes(with_header('{"__metadata__":{"\\u00e9\\n":"\\ud83d\\ude00\\/"}}'))
    assert read_metadata(tmp_path / "model") == {"é\n": "😀/"}


def test_names_dtypes_and_shapes_are_the_files_own(tmp_path):
    tensors = one_of_each(2, 6)
    veturboio.save_file(tensors, tmp_path / "model")
    names, dtypes, shapes = list_tensors(tmp_path / "model")
    expected = {
        str(dtype).removeprefix("torch."): (FORMAT_NAMES[dtype], [2, 12] if "x2" in str(dtype) else [2, 6]) for dtype in DTYPES
    }
    assert dict(zip(names, zip(dtypes, shapes, strict=True), strict=True)) == expected


def test_tensors_are_listed_in_the_order_of_their_data(tmp_path):
    entries = {"z": entry("U8", [2], 1, 3), "a": entry("U8", [], 0, 1), "m": entry("F32", [0, 7], 3, 3)}
    (tmp_path / "model").write_bytes(with_header(entries, b"\0\0\0"))
    assert list_tensors(tmp_path / "model") == (["a", "z", "m"], ["U8", "U8", "F32"], [[], [2], [0, 7]])
    (tmp_path / "empty").write_bytes(with_header("{}"))
    assert list_tensors(tmp_path / "empty") == ([], [], [])


def test_no_data_are_read(shm_path):
    # There is no memory for 16 TiB.
    write_zeros(shm_path / "model", num_tensors=4, bytes_each=1 << 42)
    names, dtypes, shapes = list_tensors(shm_path / "model")
    assert (names[3], dtypes[3], shapes[3]) == ("layer.3", "U8", [1 << 42])
    assert read_metadata(shm_path / "model") == {}


def test_a_header_longer_than_a_first_read_is_read_whole(tmp_path):
    tensors = {f"layer.{i}.a.rather.long.name": torch.full((), i) for i in range(5000)}
    veturboio.save_file(tensors, tmp_path / "model", metadata={"at": "the start"})
    names, _, shapes = list_tensors(tmp_path / "model")
    assert names == sorted(tensors)
    assert shapes == [[]] * 5000
    assert read_metadata(tmp_path / "model") == {"at": "the start"}
