"""load(mmap=True): a private mapping of the file."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors_files import entry, with_header, write_zeros
from sample_tensors import assert_same, one_of_each

import veturboio


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    veturboio.save_file({"w": torch.arange(10_000), "b": torch.ones(5000)}, path)
    return path


def mappings_of(path):
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        return sum(line.rstrip().endswith(str(path)) for line in maps)


def test_a_write_to_a_tensor_does_not_reach_the_file(model):
    before = model.read_bytes()
    tensors = veturboio.load(model, mmap=True)
    tensors["w"].zero_()
    tensors["b"].add_(1)
    assert model.read_bytes() == before
    assert veturboio.load(model, mmap=True)["w"].tolist() == list(range(10_000))


def test_a_write_to_a_tensor_does_not_reach_its_neighbours(model):
    tensors = veturboio.load(model, mmap=True)
    tensors["w"].zero_()
    assert tensors["b"].eq(1).all()


def test_tensors_stay_valid_when_the_file_is_replaced_or_removed(model):
    expected = veturboio.load(model)
    mapped = veturboio.load(model, mmap=True)
    veturboio.save_file({"w": torch.zeros(10_000, dtype=torch.int64), "b": torch.zeros(5000)}, model)
    assert_same(mapped, expected)
    mapped_again = veturboio.load(model, mmap=True)
    model.unlink()
    assert not mapped_again["w"].any()
    assert_same(mapped, expected)


def test_each_tensor_has_a_storage_of_its_own(tmp_path):
    veturboio.save_file(one_of_each(3, 4), tmp_path / "model")
    for tensor in veturboio.load(tmp_path / "model", mmap=True).values():
        assert (tensor.storage_offset(), tensor.untyped_storage().nbytes()) == (0, tensor.nbytes)


def test_the_file_stays_mapped_until_the_last_tensor_dies(model):
    tensors = veturboio.load(model, mmap=True)
    assert mappings_of(model) == 1
    del tensors["w"]
    assert mappings_of(model) == 1
    assert tensors["b"].eq(1).all()
    del tensors["b"]
    assert mappings_of(model) == 0


def test_no_file_descriptor_stays_open(model):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    tensors = veturboio.load(model, mmap=True)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
    assert len(tensors) == 2


def test_a_tensor_that_lies_askew_is_copied_and_the_others_are_mapped(tmp_path):
    entries = {"odd": entry("U8", [3], 0, 3), "f": entry("F32", [2], 3, 11), "i": entry("I8", [2], 11, 13)}
    header = with_header(entries)
    data = bytes([1, 2, 3]) + torch.tensor([1.5, -2.5]).numpy().tobytes() + bytes([4, 255])
    for padding in range(4):
        (tmp_path / "model").write_bytes(with_header(header[8:] + b" " * padding, data))
        loaded = veturboio.load(tmp_path / "model", mmap=True)
        assert loaded["f"].tolist() == [1.5, -2.5]
        assert (loaded["odd"].tolist(), loaded["i"].tolist()) == ([1, 2, 3], [4, -1])
        assert loaded["f"].data_ptr() % 4 == 0
        assert loaded["f"].untyped_storage().nbytes() == 8
        loaded["f"].resize_(100)


def test_a_model_that_would_not_fit_in_memory_can_be_mapped(shm_path):
    # 16 TiB, of which nothing is read.
    write_zeros(shm_path / "model", num_tensors=4, bytes_each=1 << 42)
    tensors = veturboio.load(shm_path / "model", mmap=True)
    assert tensors["layer.3"].shape == (1 << 42,)
    assert tensors["layer.3"][-1] == 0


def test_only_the_named_tensors_are_given(model):
    tensors = torch.ops.veturbo.load_file(str(model), mmap=True, names=["b"])
    assert_same(tensors, {"b": torch.ones(5000)})


def test_memory_for_other_devices_is_not_mapped(model):
    tensors = veturboio.load(model, "meta", mmap=True)
    assert tensors["w"].is_meta
    assert mappings_of(model) == 0
