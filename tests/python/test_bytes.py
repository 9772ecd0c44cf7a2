"""Files written are byte for byte what the safetensors library writes, and each reads what the other wrote."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors_files import entry, split, with_header
from sample_tensors import DTYPES, FORMAT_NAMES, assert_same, bits, one_of_each, sample

import veturboio

# safetensors 0.8 writes these but has no names for them when it reads.
UNREADABLE_FOR_THE_REFERENCE = {torch.float8_e8m0fnu, torch.float4_e2m1fn_x2}
SHAPES = [(), (0,), (0, 3), (1,), (7,), (2, 3), (2, 1, 4, 2)]
NAMES = [
    "",
    " ",
    "a/b",
    "layer.0.weight",
    "gewicht_ü",
    "权重",
    "😀",
    'say "hi"',
    "back\\slash",
    "tab\tnew\nline\x00\x1f\x7f",
    "__x__",
]

by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=FORMAT_NAMES.values())


def shapes_of(dtype):
    """A scalar of two elements to a byte has no shape in the format."""
    return [shape for shape in SHAPES if shape or dtype != torch.float4_e2m1fn_x2]


def saved(path, tensors, metadata=None):
    veturboio.save_file(tensors, path, metadata=metadata)
    return path.read_bytes()


@by_dtype
def test_a_tensor_of_any_shape_is_written_as_the_reference_writes_it(tmp_path, dtype):
    for shape in shapes_of(dtype):
        tensors = {"weight": sample(dtype, *shape)}
        assert saved(tmp_path / "ours", tensors) == safetensors.torch.save(tensors), shape


@by_dtype
def test_a_tensor_is_written_as_the_format_says(tmp_path, dtype):
    tensor = sample(dtype, 5, 4)
    shape = [5, 8] if dtype == torch.float4_e2m1fn_x2 else [5, 4]
    header = json.dumps({"w": entry(FORMAT_NAMES[dtype], shape, 0, tensor.nbytes)}, separators=(",", ":"))
    expected = with_header(header + " " * (-len(header) % 8), bits(tensor))
    assert saved(tmp_path / "ours", {"w": tensor}) == expected


@by_dtype
def test_every_file_that_is_written_loads_bit_for_bit(tmp_path, dtype):
    tensors = {str(shape): sample(dtype, *shape) for shape in shapes_of(dtype)}
    veturboio.save_file(tensors, tmp_path / "ours")
    assert_same(veturboio.load(tmp_path / "ours"), tensors)


@by_dtype
def test_the_reference_reads_our_file(tmp_path, dtype):
    if dtype in UNREADABLE_FOR_THE_REFERENCE:
        with pytest.raises(KeyError, match=FORMAT_NAMES[dtype]):  # should it learn to, this test will say so
            safetensors.torch.load(saved(tmp_path / "ours", {"w": sample(dtype, 3, 4)}))
        return
    tensors = {str(shape): sample(dtype, *shape) for shape in SHAPES}
    assert_same(safetensors.torch.load(saved(tmp_path / "ours", tensors)), tensors)


def test_tensors_of_all_dtypes_stand_in_the_order_of_the_reference(tmp_path):
    tensors = one_of_each(3, 2)
    assert saved(tmp_path / "ours", tensors) == safetensors.torch.save(tensors)
    dtypes = torch.ops.veturbo.list_tensors(str(tmp_path / "ours"))[1]
    assert dtypes == list(reversed(FORMAT_NAMES.values()))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_written_as_the_reference_writes_it(tmp_path, name):
    tensors = {name: torch.arange(3)}
    assert saved(tmp_path / "ours", tensors) == safetensors.torch.save(tensors)
    assert_same(veturboio.load(tmp_path / "ours"), tensors)


def test_names_are_sorted_by_their_bytes(tmp_path):
    tensors = {name: torch.tensor(i) for i, name in enumerate(["b", "é", "a.10", "a.9", "Z", "a", "￿", "😀"])}
    assert saved(tmp_path / "ours", tensors) == safetensors.torch.save(tensors)
    assert list(veturboio.load(tmp_path / "ours")) == sorted(tensors, key=str.encode)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"ключ\n": 'wert "ü"'}, {"": ""}], ids=ascii)
def test_metadata_of_at_most_one_entry_are_written_as_the_reference_writes_them(tmp_path, metadata):
    tensors = {"w": torch.ones(2, 3)}
    assert saved(tmp_path / "ours", tensors, metadata) == safetensors.torch.save(tensors, metadata)
    if metadata != {}:  # of nothing at all the reference makes a file that nobody can read: see the next test
        assert saved(tmp_path / "empty", {}, metadata) == safetensors.torch.save({}, metadata)


def test_no_tensors_and_empty_metadata_make_a_file_that_can_be_read(tmp_path):
    with pytest.raises(safetensors.SafetensorError, match="invalid JSON"):
        safetensors.torch.load(safetensors.torch.save({}, {}))
    header, data = split(saved(tmp_path / "ours", {}, {}))
    assert (json.loads(header), data) == ({"__metadata__": {}}, b"")
    assert veturboio.load(tmp_path / "ours") == safetensors.torch.load_file(tmp_path / "ours") == {}


def test_several_metadata_entries_are_sorted(tmp_path):
    # The reference's order is another one in each process; all but the order is the same.
    metadata = {"z": "1", "a": "2", "é": "3", "Z": "4", "m": "5"}
    tensors = {"w": torch.ones(2, 3)}
    header, data = split(saved(tmp_path / "ours", tensors, metadata))
    reference_header, reference_data = split(safetensors.torch.save(tensors, metadata))
    assert (json.loads(header), len(header), data) == (json.loads(reference_header), len(reference_header), reference_data)
    assert list(json.loads(header)["__metadata__"]) == sorted(metadata, key=str.encode)


def test_bytes_of_a_bool_other_than_0_and_1_survive(tmp_path):
    odd = torch.tensor([0, 1, 2, 127, 255], dtype=torch.uint8)
    written = saved(tmp_path / "ours", {"mask": odd.view(torch.bool)})
    assert split(written)[1] == bytes([0, 1, 2, 127, 255])
    loaded = veturboio.load(tmp_path / "ours")["mask"]
    assert loaded.dtype == torch.bool
    assert loaded.view(torch.uint8).tolist() == odd.tolist()


def test_lazily_conjugated_and_negated_views_are_saved_as_what_they_stand_for(tmp_path):
    conjugated = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj()
    negated = torch.tensor([5 + 6j, 7 - 8j], dtype=torch.complex64).conj().imag
    assert conjugated.is_conj()
    assert negated.is_neg()
    veturboio.save_file({"conjugated": conjugated, "negated": negated}, tmp_path / "ours")
    loaded = veturboio.load(tmp_path / "ours")
    assert loaded["conjugated"].tolist() == [1 - 2j, 3 + 4j]
    assert loaded["negated"].tolist() == [-6, 8]


shapes = st.lists(st.integers(0, 5), max_size=4)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
specs = st.tuples(st.sampled_from(DTYPES), shapes).filter(lambda spec: spec[1] or spec[0] != torch.float4_e2m1fn_x2)
models = st.dictionaries(names, specs, max_size=8).map(
    lambda model: {name: sample(dtype, *shape, seed=i) for i, (name, (dtype, shape)) in enumerate(model.items())}
)


@given(tensors=models, metadata=st.none() | st.dictionaries(texts, texts, max_size=1))
def test_any_model_is_written_as_the_reference_writes_it_and_loads_bit_for_bit(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    written = saved(path, tensors, metadata)
    if tensors or metadata != {}:
        assert written == safetensors.torch.save(tensors, metadata)
    # Metadata that name a tensor are restored as its alias.
    loaded = veturboio.load(path)
    assert_same({name: loaded[name] for name in tensors}, tensors)
    assert_same(veturboio.load(path, mmap=True), loaded)


@given(tensors=models)
def test_any_file_of_the_reference_loads_bit_for_bit(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    safetensors.torch.save_file(tensors, path)
    assert_same(veturboio.load(path), tensors)


@given(tensors=models)
def test_the_reference_loads_any_file_of_ours_bit_for_bit(tmp_path_factory, tensors):
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.dtype not in UNREADABLE_FOR_THE_REFERENCE}
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    veturboio.save_file(tensors, path)
    assert_same(safetensors.torch.load_file(path), tensors)
