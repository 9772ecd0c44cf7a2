"""veturboio.safetensors.torch loads and saves as safetensors.torch does: the same tensors, the same files, the same refusals."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors_files import entry, with_header
from safetensors_oracle import OURS, THEIRS, assert_same_error, assert_same_result
from sample_tensors import assert_same, bits, one_of_each, sample

FILE = "model.safetensors"


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    safetensors.torch.save_file(tensors(), FILE, metadata={"format": "pt"})
    safetensors.torch.save_file(one_of_each(3, 4), "every dtype")
    torch.save({"w": torch.ones(2)}, "torch.pt")


def tensors():
    return {
        "matrix": torch.arange(12.0).reshape(3, 4),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.empty(0, 4),
        '\u00e9 "quoted"\n': torch.tensor([True, False]),
        "b": sample(torch.bfloat16, 4, 2, 3),
        "a": sample(torch.bfloat16, 2, 2),
    }


def written(library, state_dict, **options):
    """The file that save_file makes, which save() must give as bytes."""
    path = Path(library.name)
    library.save_file(state_dict, path, **options)
    assert library.save(state_dict, **options) == path.read_bytes()
    return path.read_bytes()


def storage():
    return torch.arange(16.0).reshape(4, 4)


RESULTS = {
    "load_file": lambda lib: lib.load_file(FILE),
    "load_file of a pathlib.Path": lambda lib: lib.load_file(Path(FILE)),
    "load_file by pread": lambda lib: lib.load_file(FILE, backend="pread"),
    "load_file to a device": lambda lib: lib.load_file(FILE, "cpu"),
    "load_file by keyword": lambda lib: lib.load_file(filename=FILE, device="cpu", backend="mmap"),
    "load_file of every dtype": lambda lib: lib.load_file("every dtype"),
    "load": lambda lib: sorted_by_name(lib.load(Path(FILE).read_bytes())),
    "load by keyword": lambda lib: sorted_by_name(lib.load(data=Path(FILE).read_bytes())),
    "load of a file without tensors": lambda lib: lib.load(THEIRS.save({})),
    "save_file": lambda lib: written(lib, tensors()),
    "save_file of every dtype": lambda lib: written(lib, one_of_each(3, 4)),
    "save_file with metadata": lambda lib: written(lib, tensors(), metadata={"format": "pt"}),
    "save_file with metadata that are not ASCII": lambda lib: written(lib, tensors(), metadata={'\u00e9"': "\u2028\\\n"}),
    "save_file with empty metadata": lambda lib: written(lib, tensors(), metadata={}),
    "save_file of nothing": lambda lib: written(lib, {}),
    "save_file of nothing with metadata": lambda lib: written(lib, {}, metadata={"a": "b"}),
    "save_file by keyword": lambda lib: lib.save_file(tensors=tensors(), filename=lib.name, metadata=None),
    "save_file over a file": lambda lib: [written(lib, tensors()), written(lib, one_of_each(2))],
    "save_file of a parameter": lambda lib: written(lib, {"p": torch.nn.Parameter(torch.ones(3))}),
    "save_file of an OrderedDict": lambda lib: written(lib, OrderedDict(b=torch.ones(1), a=torch.zeros(2))),
    "save_file of rows of one storage": lambda lib: written(lib, (lambda s: {"top": s[:2], "bottom": s[2:]})(storage())),
    "save_file of a row": lambda lib: written(lib, {"row": storage()[1]}),
    "save_file of no rows beside all": lambda lib: written(lib, (lambda s: {"none": s[0:0], "all": s})(storage())),
    "save_file of a tensor with a gradient": lambda lib: written(lib, {"g": torch.ones(3, requires_grad=True)}),
    "save_file of one channel last": lambda lib: written(
        lib, {"c": torch.ones(2, 1, 3, 1).to(memory_format=torch.channels_last)}
    ),
}


def sorted_by_name(loaded):
    """Theirs has them in another order each time."""
    return dict(sorted(loaded.items()))


@pytest.mark.parametrize("call", RESULTS.values(), ids=RESULTS)
def test_same_result(call):
    assert_same_result(call)


TEXTS = {
    "load_file of a file that is missing": lambda lib: lib.load_file("missing"),
    "load_file with a backend that is none": lambda lib: lib.load_file(FILE, backend="io_uring"),
    "load_file with a device that is none": lambda lib: lib.load_file(FILE, device="tape"),
    "save_file of a text": lambda lib: lib.save_file("tensors", "out"),
    "save_file of a list": lambda lib: lib.save_file([torch.ones(1)], "out"),
    "save of a text": lambda lib: lib.save("tensors"),
    "save_file of a dict in a dict": lambda lib: lib.save_file({"K": {}}, "out"),
    "save_file of a number": lambda lib: lib.save_file({"K": 1}, "out"),
    "save_file of an array": lambda lib: lib.save_file({"K": np.ones(2)}, "out"),
    "save of a dict in a dict": lambda lib: lib.save({"K": {}}),
    "save_file of sparse tensors": lambda lib: lib.save_file({"K": torch.eye(2).to_sparse(), "L": torch.ones(1)}, "out"),
    "save of sparse tensors": lambda lib: lib.save({"K": torch.eye(2).to_sparse(), "L": torch.eye(3).to_sparse()}),
    "save_file of a transposed tensor": lambda lib: lib.save_file({"K": storage().t()}, "out"),
    "save_file of an expanded tensor": lambda lib: lib.save_file({"K": torch.ones(1).expand(4)}, "out"),
    "save_file of a column": lambda lib: lib.save_file({"K": storage()[:, 0]}, "out"),
    "save of a transposed tensor": lambda lib: lib.save({"K": storage().t()}),
    "save_file of one tensor twice": lambda lib: lib.save_file((lambda s: {"a": s, "b": s})(storage()), "out"),
    "save_file of rows that overlap": lambda lib: lib.save_file((lambda s: {"a": s[:3], "b": s[2:]})(storage()), "out"),
    "save_file of a part and the whole": lambda lib: lib.save_file((lambda s: {"a": s[:1], "b": s})(storage()), "out"),
}
ERRORS = {
    "load_file of a torch file": lambda lib: lib.load_file("torch.pt"),
    "load_file with the backend by position": lambda lib: lib.load_file(FILE, "cpu", "mmap"),
    "load_file of bytes": lambda lib: lib.load_file(FILE.encode()),
    "load_file of None": lambda lib: lib.load_file(None),
    "load of a text": lambda lib: lib.load("text"),
    "load of None": lambda lib: lib.load(None),
    "load of no bytes": lambda lib: lib.load(b""),
    "save_file of a name that is a number": lambda lib: lib.save_file({3: torch.ones(1)}, "out"),
    "save_file of a name that is None": lambda lib: lib.save_file({None: torch.ones(1)}, "out"),
    "save_file with a number in the metadata": lambda lib: lib.save_file({"a": torch.ones(1)}, "out", {"k": 1}),
    "save_file with a number for a key": lambda lib: lib.save_file({"a": torch.ones(1)}, "out", {1: "v"}),
    "save_file with a list for metadata": lambda lib: lib.save_file({"a": torch.ones(1)}, "out", [1]),
    "save with a number in the metadata": lambda lib: lib.save({"a": torch.ones(1)}, {"k": 1}),
    "save_file without a filename": lambda lib: lib.save_file({"a": torch.ones(1)}),
    "save_file to a filename of bytes": lambda lib: lib.save_file({"a": torch.ones(1)}, b"out"),
    "save_file into a folder that is missing": lambda lib: lib.save_file({"a": torch.ones(1)}, "missing/out"),
    "save_file over a folder": lambda lib: lib.save_file({"a": torch.ones(1)}, "/tmp"),
    "save_file of a tensor on meta": lambda lib: lib.save_file({"a": torch.ones(1, device="meta")}, "out"),
    "save of a tensor on meta": lambda lib: lib.save({"a": torch.ones(1, device="meta")}),
    "save_file of complex128": lambda lib: lib.save_file({"a": torch.ones(1, dtype=torch.complex128)}, "out"),
}


@pytest.mark.parametrize("call", TEXTS.values(), ids=TEXTS)
def test_same_error_and_text(call):
    assert_same_error(call, text=True)
    assert not Path("out").exists()


@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_same_error(call):
    assert_same_error(call, text=False)
    assert not Path("out").exists()


BROKEN = {
    "no bytes": b"",
    "half a length": bytes(7),
    "a header of 0 bytes": bytes(8),
    "a header longer than the file": with_header(b"{}")[:-1],
    "a header longer than may be": (1 << 40).to_bytes(8, "little") + b"{}",
    "a header that is no UTF-8": with_header(b"{\xff}"),
    "a header that is a list": with_header("[]"),
    "a header that is no JSON": with_header("{x"),
    "bytes after the last tensor": with_header({}, b"abc"),
    "a last tensor cut short": with_header({"a": entry("F32", [2], 0, 8)}, bytes(7)),
    "a hole": with_header({"a": entry("F32", [1], 4, 8)}, bytes(8)),
    "an overlap": with_header({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, bytes(4)),
    "a shape of other size": with_header({"a": entry("F32", [2], 0, 4)}, bytes(4)),
    "a shape that overflows": with_header({"a": entry("F32", [1 << 62, 1 << 62], 0, 4)}, bytes(4)),
    "a dtype that is none": with_header({"a": entry("F99", [1], 0, 4)}, bytes(4)),
    "a number in the metadata": with_header('{"__metadata__":{"a":1}}'),
    "no safetensors at all": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_a_safetensor_error(content):
    Path("broken").write_bytes(content)
    for call in (
        lambda lib: lib.load_file("broken"),
        lambda lib: lib.safe_open("broken", "pt"),
        lambda lib: lib.safe_open("broken", "pt", backend="pread"),
        lambda lib: lib.load(content),
        lambda lib: lib.deserialize(content),
    ):
        assert_same_error(call, text=False)
    with pytest.raises(OURS.SafetensorError, match=r"^Error while deserializing header: broken: "):
        OURS.load_file("broken")


def test_our_error_is_caught_as_theirs():
    with pytest.raises(safetensors.SafetensorError):
        OURS.load_file("torch.pt")


def test_metadata_are_written_sorted():
    metadata = {"b": "1", "c": "2", "a": "3"}
    header = OURS.save({}, metadata)[8:].decode()
    assert header.startswith('{"__metadata__":{"a":"3","b":"1","c":"2"}}')
    OURS.save_file({}, "sorted", metadata)
    assert THEIRS.safe_open("sorted", "pt").metadata() == metadata


def test_lazily_conjugated_and_negated_tensors_are_written_as_they_look():
    numbers = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    lazy = {"conjugated": numbers.clone().conj(), "negated": torch.arange(3.0)._neg_view()}
    OURS.save_file(lazy, "lazy")
    assert_same(THEIRS.load_file("lazy"), {"conjugated": numbers.conj().resolve_conj(), "negated": -torch.arange(3.0)})
    assert OURS.save(lazy) == Path("lazy").read_bytes()


def test_a_file_that_could_not_be_written_leaves_the_old_one():
    before = Path(FILE).read_bytes()
    for wrong in ({"K": storage().t()}, {"K": torch.ones(1, device="meta")}, {"K": 1}):
        with pytest.raises(Exception, match="K"):
            OURS.save_file(wrong, FILE)
    assert Path(FILE).read_bytes() == before


def test_load_takes_what_holds_bytes_and_keeps_nothing_of_it():
    for holder in (bytes, bytearray, memoryview):
        content = bytearray(Path(FILE).read_bytes())
        loaded = OURS.load(holder(content))
        content[:] = bytes(len(content))
        assert_same(loaded, tensors())
        loaded["matrix"].add_(1)


def test_load_has_every_dtype():
    assert_same(OURS.load(Path("every dtype").read_bytes()), one_of_each(3, 4))


def test_bytes_of_a_tensor_as_older_releases_gave_them():
    for name, tensor in one_of_each(3, 4).items():
        assert OURS._tobytes(tensor, name) == bits(tensor)
    assert OURS._flatten({"w": torch.ones(2, 1)}) == {
        "w": {"dtype": "float32", "shape": torch.Size([2, 1]), "data": torch.ones(2, 1).numpy().tobytes()}
    }
    with pytest.raises(ValueError, match="non contiguous tensor: `K`"):
        OURS._tobytes(storage().t(), "K")
