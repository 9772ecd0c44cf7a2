"""Where the tensors of a load lie in memory."""

from __future__ import annotations

import pytest
import torch

import veturboio


@pytest.mark.parametrize("padding", [0, 8, 16, 24, 40, 64, 4088])
def test_no_tensor_lies_just_ahead_of_its_place_in_the_file(tmp_path, padding):
    """Copying to such a place is slow on some processors, see place() in load_job.cpp."""
    file = tmp_path / "model"
    tensors = {f"{i:03}": torch.full((size,), i, dtype=torch.uint8) for i, size in enumerate([5000, 1, 4093, 64, 100_000, 7])}
    veturboio.save_file(tensors, file, metadata={"": ""})
    empty = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    filler = "x" * ((4096 - padding - empty) % 4096)
    veturboio.save_file(tensors, file, metadata={"": filler})
    offset = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert (offset + padding) % 4096 == 0
    for name, tensor in veturboio.load(file).items():
        assert torch.equal(tensor, tensors[name])
        assert tensor.data_ptr() % 64 == 0
        assert not 0 < (tensor.data_ptr() - offset) % 4096 < 64
        offset += tensor.nbytes


@pytest.mark.parametrize("header_bytes", [100, 5000, (2 << 20) + 70_000])
def test_a_large_model_lies_in_huge_pages_as_in_the_file(tmp_path, header_bytes):
    """Where chunks of the file begin, huge pages of the memory have begun, see first_place() in load_job.cpp."""
    file = tmp_path / "model"
    tensors = {f"{i:03}": torch.full((size,), i, dtype=torch.uint8) for i, size in enumerate([3 << 20, 999, 5 << 20])}
    veturboio.save_file(tensors, file, metadata={"": "x" * header_bytes})
    offset = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    for name, tensor in veturboio.load(file).items():
        assert torch.equal(tensor, tensors[name])
        assert (tensor.data_ptr() - offset) % (2 << 20) < 128 * len(tensors)
        offset += tensor.nbytes
