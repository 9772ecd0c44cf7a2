"""TensorSpec, serialize, serialize_file and deserialize: files made of memory that somebody else holds."""

from __future__ import annotations

import ctypes
import pickle
from pathlib import Path

import pytest
import torch
from safetensors_files import entry, with_header
from safetensors_oracle import OURS, THEIRS, assert_same_error, assert_same_result
from sample_tensors import FORMAT_NAMES, one_of_each

MEMORY = ctypes.create_string_buffer(bytes(range(24)), 24)
NAMES = {str(dtype).removeprefix("torch."): word for dtype, word in FORMAT_NAMES.items()}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def spec(library, dtype="float32", shape=(2, 3), data_ptr=None, data_len=24):
    address = ctypes.addressof(MEMORY) if data_ptr is None else data_ptr
    return library.TensorSpec(dtype=dtype, shape=shape, data_ptr=address, data_len=data_len)


def specs(library, tensors):
    return {
        name: spec(library, str(tensor.dtype).removeprefix("torch."), tensor.shape, tensor.data_ptr(), tensor.nbytes)
        for name, tensor in tensors.items()
    }


EVERY_DTYPE = one_of_each(3, 4)
MIXED = {"f": torch.ones(3), "h": torch.zeros(2, 1, dtype=torch.float16), "s": torch.tensor(7), "e": torch.empty(0, 2)}


def file_of(library, tensors, *metadata):
    library.serialize_file(specs(library, tensors), library.name, *metadata)
    assert library.serialize(specs(library, tensors), *metadata) == Path(library.name).read_bytes()
    return Path(library.name).read_bytes()


RESULTS = {
    "a spec": spec,
    "a spec of no elements": lambda lib: spec(lib, shape=[0], data_ptr=0, data_len=0),
    "a spec of a scalar": lambda lib: spec(lib, shape=[], data_len=4),
    "a spec of torch.Size": lambda lib: spec(lib, shape=torch.Size([2, 3])),
    "F4 has twice the elements in the file": lambda lib: spec(lib, "float4_e2m1fn_x2", [2, 3], data_len=6),
    "F4 of no elements": lambda lib: spec(lib, "float4_e2m1fn_x2", [3, 0], data_len=0),
    "specs of every dtype": lambda lib: [spec(lib, name) for name in NAMES],
    "the text of a spec": lambda lib: repr(spec(lib)),
    "two specs are not equal": lambda lib: spec(lib) == spec(lib),
    "a spec can be a key": lambda lib: len({spec(lib), spec(lib)}),
    "a file": lambda lib: file_of(lib, MIXED),
    "a file of every dtype": lambda lib: file_of(lib, EVERY_DTYPE),
    "a file with metadata": lambda lib: file_of(lib, MIXED, {"k": "v"}),
    "a file with empty metadata": lambda lib: file_of(lib, MIXED, {}),
    "a file without metadata": lambda lib: file_of(lib, MIXED, None),
    "a file without tensors": lambda lib: file_of(lib, {}),
    "the same memory twice": lambda lib: lib.serialize({"a": spec(lib), "b": spec(lib, "uint8", [24])}),
    "bytes by keyword": lambda lib: lib.serialize(tensor_dict={"a": spec(lib)}, metadata={"k": "v"}),
    "a file by keyword": lambda lib: lib.serialize_file(tensor_dict={"a": spec(lib)}, filename="out", metadata=None),
    "a file to a pathlib.Path": lambda lib: lib.serialize_file({"a": spec(lib)}, Path("out")),
    "deserialize": lambda lib: sorted(lib.deserialize(THEIRS.save(MIXED, {"k": "v"})), key=str),
    "deserialize every dtype": lambda lib: sorted(lib.deserialize(THEIRS.save(EVERY_DTYPE)), key=lambda item: item[0]),
    "deserialize what PyTorch has no dtype for": lambda lib: lib.deserialize(
        with_header({"odd": entry("F6_E3M2", [4], 0, 3), "i": entry("I8", [2], 3, 5)}, b"abcde")
    )[0:0],
    "deserialize no tensors": lambda lib: lib.deserialize(THEIRS.save({})),
    "deserialize by keyword": lambda lib: len(lib.deserialize(bytes=THEIRS.save(MIXED))),
}


def comparable_fields(call):
    """deserialize() gives dicts, in which theirs has the fields in another order each time."""

    def made(library):
        value = call(library)
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            return [
                (name, {key: fields[key] for key in sorted(fields)}) for name, fields in sorted(value, key=lambda item: item[0])
            ]
        return value

    return made


@pytest.mark.parametrize("call", RESULTS.values(), ids=RESULTS)
def test_same_result(call):
    assert_same_result(comparable_fields(call))


TEXTS = {
    "a dtype that is none": lambda lib: spec(lib, "bogus"),
    "the format's own word for a dtype": lambda lib: spec(lib, "F32"),
    "complex128": lambda lib: spec(lib, "complex128"),
    "a dtype of NumPy's letters": lambda lib: spec(lib, "<f4"),
    "no dtype at all": lambda lib: spec(lib, ""),
    "memory that is too short": lambda lib: lib.serialize({"a": spec(lib, data_len=20)}),
    "memory that is too long": lambda lib: lib.serialize({"a": spec(lib, shape=[1])}),
    "a shape that overflows": lambda lib: lib.serialize({"a": spec(lib, shape=[1 << 40, 1 << 40])}),
    "a file of memory that is too short": lambda lib: lib.serialize_file({"a": spec(lib, data_len=20)}, "out"),
    "a negative dimension": lambda lib: spec(lib, shape=[-1]),
    "a negative length": lambda lib: spec(lib, data_len=-1),
    "a negative address": lambda lib: spec(lib, data_ptr=-1),
    "a dimension above 64 bits": lambda lib: spec(lib, shape=[1 << 70]),
}
ERRORS = {
    "a spec by position": lambda lib: lib.TensorSpec("float32", [1], 1, 4),
    "a spec that lacks its memory": lambda lib: lib.TensorSpec(dtype="float32"),
    "a spec with more than there is": lambda lib: lib.TensorSpec(dtype="float32", shape=[1], data_ptr=1, data_len=4, x=1),
    "a dtype that is a number": lambda lib: spec(lib, 3),
    "a dtype of PyTorch's": lambda lib: spec(lib, torch.float32),
    "a shape that is a number": lambda lib: spec(lib, shape=3),
    "a shape that is a text": lambda lib: spec(lib, shape="ab"),
    "a shape of numbers with a point": lambda lib: spec(lib, shape=[1.5]),
    "an iterator for a shape": lambda lib: spec(lib, shape=iter([1])),
    "an address that is a text": lambda lib: lib.TensorSpec(dtype="int8", shape=[1], data_ptr="1", data_len=1),
    "a new dtype for a spec": lambda lib: setattr(spec(lib), "dtype", "F16"),
    "pickling a spec": lambda lib: pickle.dumps(spec(lib)),
    "a dict in the place of a spec": lambda lib: lib.serialize({"a": {"dtype": "float32", "shape": [1], "data": b"abcd"}}),
    "a tensor in the place of a spec": lambda lib: lib.serialize({"a": torch.ones(1)}),
    "a list of specs": lambda lib: lib.serialize([spec(lib)]),
    "None for specs": lambda lib: lib.serialize(None),
    "a name that is a number": lambda lib: lib.serialize({3: spec(lib)}),
    "metadata that are a list": lambda lib: lib.serialize({"a": spec(lib)}, [1]),
    "a number in the metadata": lambda lib: lib.serialize({"a": spec(lib)}, {"k": 1}),
    "a number for a key": lambda lib: lib.serialize({"a": spec(lib)}, {1: "v"}),
    "a file into a folder that is missing": lambda lib: lib.serialize_file({"a": spec(lib)}, "missing/out"),
    "a file over a folder": lambda lib: lib.serialize_file({"a": spec(lib)}, "/tmp"),
    "a file to a name of bytes": lambda lib: lib.serialize_file({"a": spec(lib)}, b"out"),
    "a file to a number": lambda lib: lib.serialize_file({"a": spec(lib)}, 3),
    "deserialize of a text": lambda lib: lib.deserialize("text"),
    "deserialize of None": lambda lib: lib.deserialize(None),
    "deserialize of no bytes": lambda lib: lib.deserialize(b""),
}


@pytest.mark.parametrize("call", TEXTS.values(), ids=TEXTS)
def test_same_error_and_text(call):
    assert_same_error(call, text=True)
    assert not Path("out").exists()


@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_same_error(call):
    assert_same_error(call, text=False)
    assert not Path("out").exists()


def test_every_dtype_has_the_word_of_the_format():
    assert {name: spec(OURS, name).dtype for name in NAMES} == NAMES


def test_memory_at_no_address_is_refused():
    """Theirs ends the process."""
    with pytest.raises(OURS.SafetensorError, match="invalid shape, data type, or offset for tensor"):
        OURS.serialize({"a": spec(OURS, data_ptr=0)})


def test_deserialized_bytes_are_the_callers_own():
    content = OURS.serialize({"a": spec(OURS)})
    ((_, fields),) = OURS.deserialize(content)
    fields["data"][:] = bytes(24)
    assert content.endswith(bytes(range(24)))
    assert OURS.deserialize(bytearray(content)) == OURS.deserialize(memoryview(content)) == OURS.deserialize(content)


def test_deserialize_has_tensors_that_pytorch_has_not():
    content = with_header({"i": entry("I8", [2], 3, 5), "odd": entry("F6_E3M2", [4], 0, 3)}, b"abcde")
    assert OURS.deserialize(content) == [
        ("odd", {"dtype": "F6_E3M2", "shape": [4], "data": bytearray(b"abc")}),
        ("i", {"dtype": "I8", "shape": [2], "data": bytearray(b"de")}),
    ]
