"""The drop-in for safetensors, over SFCS."""

from __future__ import annotations

import pytest
import torch
from sample_tensors import assert_same
from sfcs_cluster import Folder

import veturboio.safetensors.torch as drop_in
from veturboio.safetensors import safe_open

TENSORS = {"matrix": torch.arange(3000.0 * 1000).reshape(3000, 1000), "half": torch.ones(7).half(), "empty": torch.empty(0)}


@pytest.fixture
def model(sfcs: Folder) -> str:
    drop_in.save_file(TENSORS, sfcs.uri("model.safetensors"), metadata={"format": "pt"})
    assert sfcs.names() == ["model.safetensors"]
    return sfcs.uri("model.safetensors")


def test_a_file_is_loaded(model):
    assert_same(drop_in.load_file(model), TENSORS)
    linear = torch.nn.Linear(4, 3)
    drop_in.save_model(linear, model)
    again = torch.nn.Linear(4, 3)
    assert drop_in.load_model(again, model) == (set(), [])
    assert_same(again.state_dict(), linear.state_dict())


def test_tensors_and_slices_are_read_one_by_one(model):
    with safe_open(model, "pt") as file:
        assert file.keys() == sorted(TENSORS)
        assert file.metadata() == {"format": "pt"}
        assert_same({name: file.get_tensor(name) for name in file.keys()}, TENSORS)  # noqa: SIM118  not a dict
        assert file.get_slice("matrix")[100:200, ::3].equal(TENSORS["matrix"][100:200, ::3])


def test_tensors_are_prefetched(model):
    with safe_open(model, "pt") as file, file.prefetch({"matrix": slice(10, 20), "half": None}) as loader:
        assert_same(
            {name: loader.take(name) for name in loader.names()}, {"matrix": TENSORS["matrix"][10:20], "half": TENSORS["half"]}
        )


def test_a_missing_file(sfcs: Folder):
    with pytest.raises(FileNotFoundError, match=f"^No such file or directory: {sfcs.uri('missing')}$"):
        safe_open(sfcs.uri("missing"), "pt")
