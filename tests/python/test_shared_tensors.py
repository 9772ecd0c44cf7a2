"""Tensors that share memory: refused, or one is saved and the others are restored, or each is saved."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from safetensors_files import header_of
from sample_tensors import assert_same

import veturboio


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def shares_memory(a, b):
    return a.data_ptr() == b.data_ptr() and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def test_shared_tensors_are_refused_by_names(tmp_path):
    shared = torch.ones(3)
    with pytest.raises(ValueError, match=r"these tensors share memory: a, b, c\. Pass force_save_shared_tensor=True") as caught:
        veturboio.save_file({"c": shared, "a": shared, "x": torch.ones(3), "b": shared.view(3, 1)}, tmp_path / "model")
    assert "or force_clone_shared_tensor=True to save each in full" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_one_is_saved_and_the_others_are_restored_as_aliases(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"c": shared, "a": shared, "b": shared[:], "other": torch.ones(2)}
    veturboio.save_file(tensors, tmp_path / "model", force_save_shared_tensor=True, metadata={"format": "pt"})
    header = header_of(tmp_path / "model")
    assert set(header) == {"__metadata__", "a", "other"}
    assert header["__metadata__"] == {"b": "a", "c": "a", "format": "pt"}
    for mmap in False, True:
        loaded = veturboio.load(tmp_path / "model", mmap=mmap)
        assert_same(loaded, tensors)
        assert shares_memory(loaded["a"], loaded["b"])
        assert shares_memory(loaded["a"], loaded["c"])


def test_each_is_saved_in_full_where_that_is_asked_for(tmp_path):
    shared = torch.arange(6.0)
    tensors = {"a": shared, "b": shared, "part": shared[2:4]}
    veturboio.save_file(tensors, tmp_path / "model", force_clone_shared_tensor=True)
    assert set(header_of(tmp_path / "model")) == {"a", "b", "part"}
    loaded = veturboio.load(tmp_path / "model")
    assert_same(loaded, tensors)
    assert not shares_memory(loaded["a"], loaded["b"])


def test_views_of_disjoint_parts_of_a_storage_do_not_share(tmp_path):
    whole = torch.arange(10.0)
    tensors = {"head": whole[:4], "tail": whole[4:], "empty": whole[4:4], "empty too": whole[:0]}
    veturboio.save_file(tensors, tmp_path / "model")
    assert_same(veturboio.load(tmp_path / "model"), tensors)


@pytest.mark.parametrize(
    "view",
    [lambda t: t[1:], lambda t: t.view(3, 2), lambda t: t.view(torch.int32), lambda t: t.t()],
    ids=["part", "shape", "dtype", "strides"],
)
def test_other_views_of_the_same_memory_cannot_stand_for_each_other(tmp_path, view):
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "b": shared, "view": view(shared)}
    with pytest.raises(ValueError, match=r"share memory, but are not the same view of it: a, view.*force_clone_shared_tensor"):
        veturboio.save_file(tensors, tmp_path / "model", force_save_shared_tensor=True)
    veturboio.save_file(tensors, tmp_path / "model", force_save_shared_tensor=True, force_clone_shared_tensor=True)
    assert set(header_of(tmp_path / "model")) == {"__metadata__", "a", "view"}
    assert_same(veturboio.load(tmp_path / "model"), tensors)


def test_a_conjugated_view_does_not_stand_for_its_base(tmp_path):
    shared = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    tensors = {"a": shared, "b": shared.conj()}
    with pytest.raises(ValueError, match="not the same view of it: a, b"):
        veturboio.save_file(tensors, tmp_path / "model", force_save_shared_tensor=True)
    veturboio.save_file(tensors, tmp_path / "model", force_clone_shared_tensor=True)
    assert_same(veturboio.load(tmp_path / "model"), tensors)


def test_tensors_that_overlap_in_part_are_found(tmp_path):
    whole = torch.arange(10.0)
    with pytest.raises(ValueError, match="these tensors share memory: first, second"):
        veturboio.save_file({"second": whole[4:], "first": whole[:5], "apart": torch.ones(1)}, tmp_path / "model")


def test_a_chain_of_overlaps_is_one_group(tmp_path):
    whole = torch.arange(12.0)
    tensors = {"a": whole[:5], "b": whole[4:9], "c": whole[8:]}
    with pytest.raises(ValueError, match="these tensors share memory: a, b, c"):
        veturboio.save_file(tensors, tmp_path / "model")


def test_metadata_in_the_way_of_an_alias_are_refused(tmp_path):
    shared = torch.ones(3)
    with pytest.raises(ValueError, match=r'metadata\["b"\] is in the way: the tensor "b" shares memory with "a"'):
        veturboio.save_file({"a": shared, "b": shared}, tmp_path / "model", force_save_shared_tensor=True, metadata={"b": "note"})
    assert not (tmp_path / "model").exists()
    veturboio.save_file({"a": shared, "b": shared}, tmp_path / "model", force_save_shared_tensor=True, metadata={"b": "a"})
    assert set(veturboio.load(tmp_path / "model")) == {"a", "b"}


def test_save_model_writes_tied_weights_once(tmp_path):
    model = Tied()
    veturboio.save_model(model, tmp_path / "model")
    assert set(header_of(tmp_path / "model")) == {"__metadata__", "embedding.weight"}
    assert header_of(tmp_path / "model")["__metadata__"] == {"head.weight": "embedding.weight"}
    loaded = veturboio.load(tmp_path / "model")
    assert_same(loaded, model.state_dict())
    assert shares_memory(loaded["embedding.weight"], loaded["head.weight"])


def test_the_reference_takes_the_file_of_a_tied_model_and_we_take_its(tmp_path):
    model, other = Tied(), Tied()
    veturboio.save_model(model, tmp_path / "ours")
    assert safetensors.torch.load_model(other, tmp_path / "ours") == (set(), [])
    assert_same(other.state_dict(), model.state_dict())
    safetensors.torch.save_model(model, tmp_path / "theirs")
    assert_same(veturboio.load(tmp_path / "theirs"), model.state_dict())


def test_the_entry_that_notes_the_framework_is_no_alias(tmp_path):
    veturboio.save_file({"pt": torch.ones(1)}, tmp_path / "model", metadata={"format": "pt", "author": "me"})
    assert set(veturboio.load(tmp_path / "model")) == {"pt"}
