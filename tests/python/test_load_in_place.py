"""Loading into tensors that exist: load(..., state_dict=) and the operator load_file_."""

from __future__ import annotations

import pytest
import torch
from sample_tensors import DTYPES, FORMAT_NAMES, assert_same, bits, one_of_each, sample

import veturboio


def load_into(state_dict, path):
    assert veturboio.load(path, state_dict=state_dict) is state_dict


def load_file_(state_dict, path):
    torch.ops.veturbo.load_file_(state_dict, str(path))


both_ways = pytest.mark.parametrize("load", [load_into, load_file_], ids=["load", "load_file_"])


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    veturboio.save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4)}, path)
    return path


def zeros():
    return {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.int64)}


@both_ways
def test_the_tensors_hold_the_file_and_are_the_same_objects(tmp_path, load):
    saved = one_of_each(5, 4)
    veturboio.save_file(saved, tmp_path / "model")
    targets = {name: torch.zeros_like(tensor.view(torch.uint8)).view(tensor.dtype) for name, tensor in saved.items()}
    addresses = {name: (id(tensor), tensor.data_ptr()) for name, tensor in targets.items()}
    load(targets, tmp_path / "model")
    assert_same(targets, saved)
    assert {name: (id(tensor), tensor.data_ptr()) for name, tensor in targets.items()} == addresses


@both_ways
@pytest.mark.parametrize("dtype", DTYPES, ids=FORMAT_NAMES.values())
def test_strided_tensors_are_filled_in_their_own_order(tmp_path, load, dtype):
    saved = sample(dtype, 3, 4)
    veturboio.save_file({"w": saved}, tmp_path / "model")
    whole = torch.zeros(4 * dtype.itemsize, 6, dtype=torch.uint8).view(-1).view(dtype).view(4, 6)
    target = whole[:, 1:4].t()
    assert not target.is_contiguous()
    load({"w": target}, tmp_path / "model")
    assert bits(target) == bits(saved)
    around = whole.view(torch.uint8).view(4, 6, dtype.itemsize)
    assert not around[:, [0, 4, 5]].any()


@both_ways
def test_a_tensor_in_the_middle_of_a_storage_leaves_the_rest_alone(model, load):
    whole = torch.full((10,), -1.0)
    load({"a": whole[2:8].view(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, model)
    assert whole.tolist() == [-1, -1, 0, 1, 2, 3, 4, 5, -1, -1]


@both_ways
def test_channels_last_memory_keeps_its_format(tmp_path, load):
    saved = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    veturboio.save_file({"w": saved}, tmp_path / "model")
    target = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    load({"w": target}, tmp_path / "model")
    assert torch.equal(target, saved)
    assert target.is_contiguous(memory_format=torch.channels_last)


@both_ways
def test_lazily_conjugated_and_negated_views_come_to_stand_for_what_the_file_holds(tmp_path, load):
    saved = {"c": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64), "n": torch.tensor([5.0, -6.0])}
    veturboio.save_file(saved, tmp_path / "model")
    conjugated = torch.zeros(2, dtype=torch.complex64)
    negated = torch.zeros(2, dtype=torch.complex64)
    targets = {"c": conjugated.conj(), "n": negated.conj().imag}
    assert targets["c"].is_conj()
    assert targets["n"].is_neg()
    load(targets, tmp_path / "model")
    assert_same(targets, saved)
    assert conjugated.tolist() == [1 - 2j, 3 + 4j]
    assert negated.tolist() == [-5j, 6j]


@both_ways
def test_parameters_that_require_grad_are_filled_without_a_gradient(tmp_path, load):
    source, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    veturboio.save_file(source.state_dict(), tmp_path / "model")
    load(dict(target.named_parameters()), tmp_path / "model")
    assert_same(target.state_dict(), source.state_dict())
    assert all(parameter.requires_grad and parameter.is_leaf and parameter.grad is None for parameter in target.parameters())


@both_ways
def test_a_modules_state_dict_fills_the_module(tmp_path, load):
    source, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    veturboio.save_model(source, tmp_path / "model")
    load(target.state_dict(), tmp_path / "model")
    assert_same(target.state_dict(), source.state_dict())


@both_ways
@pytest.mark.parametrize("strided", [False, True])
def test_autograd_notices_that_a_tensor_was_overwritten(tmp_path, load, strided):
    veturboio.save_file({"w": torch.zeros(2, 2)}, tmp_path / "model")
    weight = torch.ones(2, 2)
    x = torch.ones(2, 2, requires_grad=True)
    loss = (x * weight).sum()  # needs the old weight for its gradient
    before = weight._version
    load({"w": weight.t() if strided else weight}, tmp_path / "model")
    assert weight._version > before
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@both_ways
def test_inference_tensors_are_filled_inside_and_outside_of_inference_mode(model, load):
    with torch.inference_mode():
        made_inside = zeros()
        load(made_inside, model)
        made_inside["a"].zero_()
    load(made_inside, model)
    made_outside = zeros()
    with torch.inference_mode():
        load(made_outside, model)
    for tensors in made_inside, made_outside:
        assert tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


@both_ways
def test_every_mismatch_is_listed_and_nothing_is_written(tmp_path, load):
    names = ["fine", "shape", "dtype", "missing", "expanded"]
    veturboio.save_file({name: torch.ones(2, 3) for name in names}, tmp_path / "model")
    targets = {
        "fine": torch.zeros(2, 3),
        "shape": torch.zeros(3, 2),
        "dtype": torch.zeros(2, 3, dtype=torch.float16),
        "expanded": torch.zeros(1, 3).expand(2, 3),
        "extra": torch.zeros(2, 3),
    }
    with pytest.raises(ValueError, match="the tensors do not match the file, nothing was loaded: ") as caught:
        load(targets, tmp_path / "model")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'model'}: ")
    assert set(text.partition("nothing was loaded: ")[2].split("; ")) == {
        '"shape" has shape [3, 2], the file [2, 3]',
        '"dtype" has dtype Half, the file Float',
        '"missing" is in the file but not among the tensors',
        '"expanded" has elements that share memory (it was made by expand()): give a copy of it',
        '"extra" is not in the file',
    }
    assert not any(tensor.any() for tensor in targets.values())


@both_ways
@pytest.mark.parametrize(
    "target",
    [torch.zeros(4, dtype=torch.int64, device="meta"), torch.zeros(4, dtype=torch.int64).to_sparse()],
    ids=["meta", "sparse"],
)
def test_what_has_no_dense_memory_is_refused(model, load, target):
    targets = {**zeros(), "b": target}
    with pytest.raises(ValueError, match='"b" is not a dense tensor with memory'):
        load(targets, model)
    assert not targets["a"].any()


def test_the_operator_loads_the_tensors_that_are_named(model):
    target = torch.zeros(2, 3)
    torch.ops.veturbo.load_file_({"a": target}, str(model), names=["a"])
    assert target.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match='"b" is not in the file'):
        torch.ops.veturbo.load_file_(zeros(), str(model), names=["a"])
    with pytest.raises(ValueError, match="the file has no tensor named c"):
        torch.ops.veturbo.load_file_({"c": target}, str(model), names=["c"])


def test_an_empty_state_dict_matches_an_empty_file(tmp_path):
    veturboio.save_file({}, tmp_path / "empty")
    assert veturboio.load(tmp_path / "empty", state_dict={}) == {}


def test_a_large_model_is_filled_by_many_threads(shm_path):
    saved = {str(i): torch.full((3_000_001,), i, dtype=torch.int16) for i in range(5)}
    veturboio.save_file(saved, shm_path / "model")
    targets = {name: torch.zeros(tensor.shape[0], 2, dtype=torch.int16)[:, 0] for name, tensor in saved.items()}
    assert veturboio.load(shm_path / "model", state_dict=targets, num_thread=4) is targets
    assert_same(targets, saved)


@pytest.mark.parametrize(
    ("state_dict", "text"),
    [
        ({"a": [1.0]}, r'state_dict\["a"\] is a list, not a tensor'),
        ({1: torch.ones(1)}, "the name 1 of a tensor must be a str, not a int"),
        ([torch.ones(1)], "state_dict must be a dict of names and tensors, not a list"),
    ],
    ids=["no tensor", "no name", "no dict"],
)
def test_a_state_dict_of_something_else_is_a_type_error(model, state_dict, text):
    with pytest.raises(TypeError, match=text):
        veturboio.load(model, state_dict=state_dict)


def test_tensors_that_share_memory_are_filled_from_the_one_that_was_kept(tmp_path):
    shared = torch.arange(3.0)
    veturboio.save_file({"kept": shared, "tied": shared}, tmp_path / "model", force_save_shared_tensor=True)
    tied = torch.zeros(3)
    load_into({"kept": tied, "tied": tied}, tmp_path / "model")
    assert tied.tolist() == [0, 1, 2]
    apart = {"kept": torch.zeros(3), "tied": torch.zeros(3)}
    load_into(apart, tmp_path / "model")
    assert apart["tied"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r'"tied" has shape \[2\].*which the file has under "kept"'):
        load_into({"kept": torch.zeros(3), "tied": torch.zeros(2)}, tmp_path / "model")
