"""Archives of torch.save, whose bytes the engine reads: the same objects as torch.load makes of them."""

from __future__ import annotations

import collections
import io
import zipfile

import pytest
import torch
from sample_tensors import DTYPES, sample

import veturboio
from veturboio import _torch_archive, _torch_files

KEY, IV = bytes(range(16)), bytes(16)

both_ways = pytest.mark.parametrize("options", [{}, {"key": KEY, "iv": IV}], ids=["plain", "encrypted"])


@pytest.fixture
def left_to_torch(monkeypatch) -> list[object]:
    """The files that PyTorch has read by itself."""
    files: list[object] = []
    load = _torch_files._load_by_torch

    def note(file, *arguments, **options):
        files.append(file)
        return load(file, *arguments, **options)

    monkeypatch.setattr(_torch_files, "_load_by_torch", note)
    return files


@pytest.fixture
def save(tmp_path):
    def save(value, options, **of_torch_save):
        content = io.BytesIO()
        torch.save(value, content, **of_torch_save)
        return write(tmp_path / "model.pt", content.getvalue(), options)

    return save


def write(path, content: bytes, options):
    if options:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        content = torch.ops.veturbo.aes_ctr_decrypt(data, *(torch.tensor(list(key), dtype=torch.uint8) for key in (KEY, IV)))
        content = content.numpy().tobytes()
    path.write_bytes(content)
    return path


def assert_same_objects(actual, expected) -> None:
    assert_alike(actual, expected)
    assert sharing(actual) == sharing(expected)


def assert_alike(actual, expected) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, torch.Tensor):
        for what in ("dtype", "device", "shape", "layout", "requires_grad", "is_leaf"):
            assert getattr(actual, what) == getattr(expected, what), what
        assert actual.stride() == expected.stride()
        assert actual.storage_offset() == expected.storage_offset()
        assert actual.is_conj() == expected.is_conj()
        assert torch.equal(storage_bytes(actual), storage_bytes(expected))
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_alike(actual[key], value)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_alike(one, other)
    else:
        assert actual == expected
    assert getattr(actual, "__dict__", None) == getattr(expected, "__dict__", None) or isinstance(expected, torch.Tensor)


def storage_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def sharing(value) -> list[int]:
    """For each tensor the first one that has the same storage."""
    storages = [tensor.untyped_storage().data_ptr() if tensor.untyped_storage().nbytes() else i
                for i, tensor in enumerate(tensors_in(value))]  # fmt: skip
    return [storages.index(storage) for storage in storages]


def module() -> dict:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    return model.state_dict()


BASE = torch.arange(1000, dtype=torch.float64)

VALUES = {
    "state dict": module(),
    "dtypes": {str(dtype): sample(dtype, 5, 4) for dtype in DTYPES},
    "views": [BASE[3:7], BASE.view(10, 100)[:, ::7], BASE.view(20, 50).t(), BASE.as_strided((2, 3), (0, 2), 5)],
    "sharing": {"a": BASE, "b": BASE, "c": BASE[10:], "d": BASE.clone()},
    "expanded": torch.ones(1).expand(1000, 3),
    "scalars": [torch.tensor(5), torch.tensor(2.5, dtype=torch.bfloat16), torch.tensor(True)],
    "empty": {"none": torch.empty(0), "shaped": torch.empty(3, 0, dtype=torch.int8), "after": torch.ones(2)},
    "no tensors": {"epoch": 3, "lr": 0.1, "name": "ü", "none": None, "raw": b"\0\xff", "set": {1, 2}, "c": 1 + 2j},
    "nothing": {},
    "nested": {"list": [torch.ones(2), {"t": (torch.zeros(3), 1)}], "size": torch.Size([2, 3]), "dtype": torch.float16},
    "containers": [collections.OrderedDict(b=torch.ones(1), a=2), collections.Counter("abca")],
    "parameters": {"p": torch.nn.Parameter(torch.ones(3)), "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False)},
    "requires_grad": torch.ones(4, requires_grad=True),
    "conjugated": torch.randn(5, dtype=torch.complex64).conj(),
    "optimizer": {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.ones(2, 2)}}, "param_groups": [{"betas": (0.9, 1)}]},
    "device": {"device": torch.device("cpu"), "tensor": torch.ones(1)},
}


@both_ways
@pytest.mark.parametrize("what", VALUES)
def test_the_objects_are_those_of_torch_load(save, options, what, left_to_torch):
    path = save(VALUES[what], options)
    expected = torch.load(save_plainly(VALUES[what]))
    assert_same_objects(veturboio.load(path, **options), expected)
    assert left_to_torch == []


def save_plainly(value) -> io.BytesIO:
    content = io.BytesIO()
    torch.save(value, content)
    content.seek(0)
    return content


class Subclass(torch.Tensor):
    pass


class Holder:
    pass


torch.serialization.add_safe_globals([Subclass, Holder])

UNUSUAL = {
    "sparse": torch.eye(3).to_sparse(),
    "subclass": torch.ones(3).as_subclass(Subclass),
    "class": Holder(),
}


@both_ways
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")  # torch.load's of 2.14
@pytest.mark.parametrize("what", UNUSUAL)
def test_objects_that_may_want_their_data_are_made_by_torch_alone(save, options, what, left_to_torch):
    path = save([UNUSUAL[what], torch.ones(2)], options)
    loaded = veturboio.load(path, **options)
    assert left_to_torch == [path]
    assert type(loaded[0]) is type(UNUSUAL[what])
    if isinstance(loaded[0], torch.Tensor):
        assert torch.equal(loaded[0].to_dense(), UNUSUAL[what].to_dense())


@both_ways
def test_the_format_before_archives_is_read_by_torch_alone(save, options, left_to_torch):
    path = save({"a": BASE}, options, _use_new_zipfile_serialization=False)
    assert torch.equal(veturboio.load(path, **options)["a"], BASE)
    assert left_to_torch == [path]


@both_ways
def test_pickles_that_run_code_are_read_by_torch_alone(save, options, left_to_torch):
    path = save({"a": BASE}, options)
    assert torch.equal(veturboio.load(path, weights_only=False, **options)["a"], BASE)
    assert left_to_torch == [path]


def rewritten(content: bytes, **changes) -> bytes:
    """The archive with other entries, {name without folder: content or compression}."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for entry in old.infolist():
            name = entry.filename.partition("/")[2]
            change = changes.get(name)
            if change is not None or name not in changes:
                compression = change if isinstance(change, int) else zipfile.ZIP_STORED
                new.writestr(entry.filename, change if isinstance(change, bytes) else old.read(entry), compression)
    return result.getvalue()


@both_ways
@pytest.mark.parametrize("change", [{"byteorder": b"big"}, {"byteorder": None}], ids=["other order", "no order"])
def test_another_byte_order_is_for_torch_to_turn(tmp_path, options, change, left_to_torch):
    content = rewritten(save_plainly({"a": BASE}).getvalue(), **change)
    path = write(tmp_path / "model.pt", content, options)
    expected = torch.load(io.BytesIO(content))
    assert torch.equal(veturboio.load(path, **options)["a"], expected["a"])
    assert left_to_torch == [path]


def test_what_is_compressed_is_read_by_torch_alone(tmp_path, left_to_torch):
    content = rewritten(save_plainly({"a": BASE}).getvalue(), **{"data/0": zipfile.ZIP_DEFLATED})
    path = write(tmp_path / "model.pt", content, {})
    assert torch.equal(veturboio.load(path)["a"], BASE)
    assert left_to_torch == [path]


@both_ways
def test_a_storage_of_another_size_than_its_record_is_for_torch_to_judge(tmp_path, options, left_to_torch):
    content = rewritten(save_plainly({"a": BASE}).getvalue(), **{"data/0": bytes(BASE.nbytes - 8)})
    path = write(tmp_path / "model.pt", content, options)
    with pytest.raises((veturboio.FileFormatError, RuntimeError)):
        veturboio.load(path, **options)
    assert left_to_torch == [path]


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch, left_to_torch):
    path = write(tmp_path / "model.pt", save_plainly({"a": BASE}).getvalue(), {})
    other = write(tmp_path / "other.pt", save_plainly({"a": BASE + 1}).getvalue(), {})
    unpickle = _torch_archive._unpickle

    def replace_and_unpickle(*arguments):
        other.rename(path)
        return unpickle(*arguments)

    monkeypatch.setattr(_torch_archive, "_unpickle", replace_and_unpickle)
    assert torch.equal(veturboio.load(path)["a"], BASE + 1)
    assert left_to_torch == [path]


@both_ways
def test_storages_are_as_independent_of_each_other_as_those_of_torch_load(save, options):
    path = save({"a": torch.arange(3), "b": torch.arange(4)}, options)
    loaded = veturboio.load(path, **options)
    loaded["a"].resize_(100).fill_(9)
    loaded["b"].add_(1)
    again = veturboio.load(path, **options)
    assert again["a"].tolist() == [0, 1, 2]
    assert again["b"].tolist() == [0, 1, 2, 3]


@both_ways
def test_any_number_of_threads(save, options, left_to_torch):
    value = {f"{i}": torch.randint(0, 256, (3 << 20,), dtype=torch.uint8) for i in range(8)}
    path = save(value, options)
    for threads in (None, 1, 3):
        assert_same_objects(veturboio.load(path, num_thread=threads, **options), value)
    assert left_to_torch == []
