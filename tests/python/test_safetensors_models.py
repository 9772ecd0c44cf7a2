"""save_model and load_model, and the functions about shared memory that other libraries import."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors_oracle import OURS, THEIRS, assert_same_error, assert_same_result
from torch import nn


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def two_layers(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def tied(seed=0):
    model = nn.ModuleDict({"decoder": nn.Linear(3, 5, bias=False), "encoder": nn.Embedding(5, 3)})
    torch.manual_seed(seed)
    nn.init.normal_(model["encoder"].weight)
    model["decoder"].weight = model["encoder"].weight
    return model


def transposed():
    model = nn.Linear(3, 4, bias=False)
    model.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4).t())
    return model


def part_of_a_storage():
    model = nn.Linear(4, 2, bias=False)
    model.weight = nn.Parameter(torch.arange(16.0).reshape(4, 4)[:2])
    return model


def saved(library, model, *args, **options):
    library.save_model(model, library.name, *args, **options)
    return Path(library.name).read_bytes()


def loaded(library, model, *args, **options):
    found = library.load_model(model, "file", *args, **options)
    return [found, dict(model.state_dict())]


def file_of(**tensors):
    safetensors.torch.save_file({name.replace("_", "."): tensor for name, tensor in tensors.items()}, "file")


def with_file(call, **tensors):
    """The call, when the file has these tensors; an underscore stands for a dot in their names."""

    def prepared(library):
        file_of(**tensors)
        return call(library)

    return prepared


WEIGHT = torch.arange(15.0).reshape(5, 3)
TWO_LAYERS = {
    name.replace(".", "_"): tensor.clone() for name, tensor in two_layers(seed=1).state_dict().items() if "num" not in name
}

RESULTS = {
    "save_model": lambda lib: saved(lib, two_layers()),
    "save_model with metadata": lambda lib: saved(lib, two_layers(), {"format": "pt"}),
    "save_model of tied weights": lambda lib: saved(lib, tied()),
    "save_model with metadata of the name that is dropped": lambda lib: saved(lib, tied(), {"encoder.weight": "mine"}),
    "save_model of what is not contiguous": lambda lib: saved(lib, transposed()),
    "save_model by keyword": lambda lib: lib.save_model(model=tied(), filename="out", metadata=None, force_contiguous=True),
    "load_model, and what it lacks": with_file(lambda lib: loaded(lib, two_layers(), strict=False), **TWO_LAYERS),
    "load_model of tied weights": with_file(lambda lib: loaded(lib, tied(seed=1)), decoder_weight=WEIGHT),
    "load_model of tied weights by their other name": with_file(lambda lib: loaded(lib, tied(seed=1)), encoder_weight=WEIGHT),
    "load_model by pread": with_file(lambda lib: loaded(lib, tied(seed=1), backend="pread"), encoder_weight=WEIGHT),
    "load_model to a device": with_file(lambda lib: loaded(lib, tied(seed=1), True, "cpu"), encoder_weight=WEIGHT),
    "load_model of more than the model has": with_file(
        lambda lib: loaded(lib, tied(seed=1), False), decoder_weight=WEIGHT, more=torch.ones(2)
    ),
    "load_model of both of two tied weights": with_file(
        lambda lib: loaded(lib, tied(seed=1), False), decoder_weight=WEIGHT, encoder_weight=WEIGHT.clone()
    ),
}
ERRORS = {
    "save_model of what is not contiguous": lambda lib: saved(lib, transposed(), force_contiguous=False),
    "load_model of less than the model has": with_file(lambda lib: loaded(lib, two_layers()), **{"0_weight": torch.ones(3, 4)}),
    "load_model of more than the model has": with_file(
        lambda lib: loaded(lib, tied()), decoder_weight=WEIGHT, zebra=torch.ones(1), ape=torch.ones(1)
    ),
    "load_model of less and more": with_file(lambda lib: loaded(lib, two_layers()), b_bias=torch.ones(1), b_weight=torch.ones(1)),
    "load_model of both of two tied weights": with_file(
        lambda lib: loaded(lib, tied()), decoder_weight=WEIGHT, encoder_weight=WEIGHT.clone()
    ),
    "load_model of another shape": with_file(lambda lib: loaded(lib, tied()), decoder_weight=torch.ones(2, 2)),
    "load_model of a file that is missing": lambda lib: lib.load_model(tied(), "missing"),
    "load_model with a backend that is none": lambda lib: lib.load_model(tied(), "missing", backend="io_uring"),
}


@pytest.mark.parametrize("call", RESULTS.values(), ids=RESULTS)
def test_same_result(call):
    assert_same_result(call)


@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_same_error_and_text(call):
    assert_same_error(call, text=True)


def test_a_model_that_is_a_part_of_a_storage_is_refused():
    assert_same_error(lambda lib: saved(lib, part_of_a_storage()), text=False)
    with pytest.raises(RuntimeError, match=r"found no suitable name to keep for saving amongst: \{'weight'\}"):
        saved(OURS, part_of_a_storage())


def test_the_callers_metadata_stay_as_they_are():
    metadata = {"format": "pt"}
    OURS.save_model(tied(), "out", metadata)
    assert metadata == {"format": "pt"}
    assert OURS.safe_open("out", "pt").metadata() == {"encoder.weight": "decoder.weight", "format": "pt"}


def tensors():
    whole = torch.arange(16.0).reshape(4, 4)
    apart = torch.arange(8.0)
    return {
        "whole": whole,
        "again": whole,
        "top": whole[:2],
        "low": apart[:4],
        "high": apart[4:],
        "alone": torch.ones(3),
        "empty": torch.empty(0),
        "meta": torch.ones(2, device="meta"),
        "bytes": whole.view(torch.uint8),
    }


HELPERS = {
    "_find_shared_tensors": lambda lib: sorted(map(sorted, lib._find_shared_tensors(tensors()))),
    "_is_complete": lambda lib: {name: lib._is_complete(tensor) for name, tensor in tensors().items() if name != "meta"},
    "storage_size": lambda lib: {name: lib.storage_size(tensor) for name, tensor in tensors().items()},
    "storage_ptr": lambda lib: (lambda all: lib.storage_ptr(all["top"]) == all["whole"].data_ptr())(tensors()),
    "storage_ptr of nothing": lambda lib: [lib.storage_ptr(torch.empty(0)), lib.storage_ptr(torch.ones(2, device="meta"))],
    "_end_ptr": lambda lib: {
        name: lib._end_ptr(tensor) - tensor.data_ptr() for name, tensor in tensors().items() if name != "meta"
    },
    "_remove_duplicate_names": lambda lib: dict(lib._remove_duplicate_names(shared())),
    "_remove_duplicate_names, one preferred": lambda lib: dict(lib._remove_duplicate_names(shared(), preferred_names=["c", "x"])),
    "_remove_duplicate_names, a part preferred": lambda lib: dict(
        lib._remove_duplicate_names(shared(), preferred_names=["part"])
    ),
    "_remove_duplicate_names, one discarded": lambda lib: dict(lib._remove_duplicate_names(shared(), discard_names=["a"])),
    "_remove_duplicate_names, all discarded": lambda lib: dict(lib._remove_duplicate_names(shared(), discard_names="abc")),
    "_remove_duplicate_names, preferred and discarded": lambda lib: dict(
        lib._remove_duplicate_names(shared(), preferred_names=["a"], discard_names=["a"])
    ),
}


def shared():
    storage = torch.ones(4)
    return {"b": storage, "a": storage, "c": storage, "part": storage[1:], "other": torch.zeros(1)}


@pytest.mark.parametrize("call", HELPERS.values(), ids=HELPERS)
def test_helpers_do_the_same(call):
    assert_same_result(call)


def test_what_lies_in_a_larger_part_does_not_hide_what_follows_it():
    """Theirs goes by where the part before ends, not by how far any of them reaches."""
    whole = torch.arange(8.0)
    parts = {"whole": whole, "middle": whole[1:2], "end": whole[6:]}
    assert OURS._find_shared_tensors(parts) == [{"whole", "middle", "end"}]
    assert len(THEIRS._find_shared_tensors(parts)) == 2
