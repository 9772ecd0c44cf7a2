"""Loading some of the tensors: names= of the operators."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors_files import entry, with_header
from sample_tensors import assert_same

import veturboio

SAVED = {"a": torch.arange(3), "b": torch.arange(4.0), "c": torch.ones(2, 2), "ü/ é": torch.zeros(0)}


@pytest.fixture
def model(tmp_path):
    veturboio.save_file(SAVED, tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize("names", [[], ["b"], ["c", "a"], ["a", "a"], ["ü/ é"], list(SAVED)], ids=str)
@pytest.mark.parametrize("mmap", [False, True])
def test_only_the_named_tensors_are_loaded(model, names, mmap):
    loaded = torch.ops.veturbo.load_file(model, names=names, mmap=mmap)
    assert_same(loaded, {name: SAVED[name] for name in names})
    order = torch.ops.veturbo.list_tensors(model)[0]
    assert list(loaded) == [name for name in order if name in names]


@pytest.mark.parametrize("mmap", [False, True])
def test_every_name_that_the_file_lacks_is_listed(model, mmap):
    with pytest.raises(ValueError, match=f"^{re.escape(model)}: the file has no tensor named A, nope, z"):
        torch.ops.veturbo.load_file(model, names=["z", "a", "nope", "A"], mmap=mmap)


def test_only_the_named_tensors_take_memory_and_are_read(shm_path):
    entries = {"huge": entry("U8", [1 << 45], 0, 1 << 45), "small": entry("U8", [3], 1 << 45, (1 << 45) + 3)}
    with (shm_path / "model").open("wb") as file:
        file.write(with_header(entries))
        file.seek(1 << 45, 1)
        file.write(b"\1\2\3")
    assert torch.ops.veturbo.load_file(str(shm_path / "model"), names=["small"])["small"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("dtype", ["F6_E2M3", "F6_E3M2"])
def test_a_dtype_that_pytorch_lacks_is_an_error_only_where_it_is_asked_for(tmp_path, dtype):
    path = str(tmp_path / "model")
    entries = {"six": entry(dtype, [4], 0, 3), "fine": entry("U8", [2], 3, 5)}
    (tmp_path / "model").write_bytes(with_header(entries, bytes(range(5))))
    for mmap in False, True:
        for options in {}, {"names": ["six"]}, {"names": ["fine", "six"]}:
            with pytest.raises(ValueError, match=f'tensor "six": PyTorch has no dtype for {dtype}: leave this tensor out'):
                torch.ops.veturbo.load_file(path, mmap=mmap, **options)
        assert torch.ops.veturbo.load_file(path, mmap=mmap, names=["fine"])["fine"].tolist() == [3, 4]
    with pytest.raises(veturboio.FileFormatError, match=f'tensor "six": PyTorch has no dtype for {dtype}') as caught:
        veturboio.load(path)
    assert caught.value.tensor == "six"
    assert torch.ops.veturbo.list_tensors(path) == (["six", "fine"], [dtype, "U8"], [[4], [2]])


def test_a_packed_dtype_needs_pairs(tmp_path):
    for shape in [2, 1], [2, 3]:
        (tmp_path / "model").write_bytes(with_header({"w": entry("F4", shape, 0, shape[1])}, b"\0" * shape[1]))
        with pytest.raises(veturboio.FileFormatError, match='tensor "w": PyTorch has F4 only in pairs'):
            veturboio.load(tmp_path / "model")
