"""load() of a directory or an index, of some names, and of what is in memory."""

from __future__ import annotations

import io
import json
import pickle
import re
import threading
from pathlib import Path

import pytest
import torch
from sample_tensors import assert_same, one_of_each
from sfcs_cluster import Folder

import veturboio

KEY = {"key": bytes(16), "iv": bytes(range(16))}
SHARDS = [
    {"embed": torch.randn(1000, 64), "layers.0.w": torch.randn(300, 300).half()},
    {"layers.1.w": torch.randn(3000, 300).half(), "empty": torch.empty(0)},
    {"norm": torch.ones(7), **{f"small.{i:03}": torch.arange(i) for i in range(300)}},
]
ALL = {name: tensor for shard in SHARDS for name, tensor in shard.items()}

pytestmark = pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")


def write_shards(join, with_index=True, **options):
    """`join` makes the path or uri of a name. Returns the index."""
    names = [f"model-{i + 1:05}-of-{len(SHARDS):05}.safetensors" for i in range(len(SHARDS))]
    for name, shard in zip(names, SHARDS, strict=True):
        veturboio.save_file(shard, join(name), metadata={"format": "pt"}, **options)
    weight_map = {tensor: name for name, shard in zip(names, SHARDS, strict=True) for tensor in shard}
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    return index if with_index else None


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    index = write_shards(lambda name: tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    (tmp_path / "README.md").write_text("# Not a model")
    return tmp_path


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("num_thread", [None, 1, 3])
def test_a_directory_is_all_its_files(directory, num_thread, mmap):
    assert_same(veturboio.load(directory, num_thread=num_thread, mmap=mmap), ALL)
    assert_same(veturboio.load(directory / "model.safetensors.index.json", num_thread=num_thread, mmap=mmap), ALL)
    (directory / "model.safetensors.index.json").unlink()
    assert_same(veturboio.load(str(directory), num_thread=num_thread, mmap=mmap), ALL)


def test_the_order_is_that_of_the_files(directory):
    in_file_order = [
        name for file in sorted(directory.glob("*.safetensors")) for name in torch.ops.veturbo.list_tensors(str(file))[0]
    ]
    assert list(veturboio.load(directory)) == in_file_order


def test_an_encrypted_directory(tmp_path):
    write_shards(lambda name: tmp_path / name, **KEY)
    assert_same(veturboio.load(tmp_path, **KEY), ALL)
    with pytest.raises(ValueError, match=r"model-00001-of-00003\.safetensors"):
        veturboio.load(tmp_path)


def test_a_remote_index(sfcs: Folder):
    index = write_shards(sfcs.uri)
    (sfcs.path / "model.safetensors.index.json").write_text(index)
    assert_same(veturboio.load(sfcs.uri("model.safetensors.index.json")), ALL)
    with veturboio.open(sfcs.uri("model.safetensors.index.json")) as reader:
        assert reader.slice("layers.1.w")[5:7].equal(ALL["layers.1.w"][5:7])


def test_into_tensors_that_exist(directory):
    targets = {name: torch.zeros_like(tensor) for name, tensor in ALL.items()}
    assert veturboio.load(directory, state_dict=targets) is targets
    assert_same(targets, ALL)
    del targets["norm"]
    with pytest.raises(ValueError, match='nothing was loaded: "norm" is in the file but not among the tensors'):
        veturboio.load(directory, state_dict=targets)
    for tensor in targets.values():
        tensor.zero_()
    veturboio.load(directory, state_dict=targets, names=lambda name: name != "norm")
    assert_same(targets, {name: tensor for name, tensor in ALL.items() if name != "norm"})


def test_a_reader_of_several_files(directory):
    with veturboio.open(directory) as reader:
        assert set(reader.keys()) == set(ALL)
        assert reader.metadata() == {"format": "pt"}
        assert reader.is_mappable
        assert_same(reader.tensors(["norm", "embed"]), {name: ALL[name] for name in ("embed", "norm")})
        assert_same(reader.tensors(mmap=True), ALL)
        before = reader.bytes_read
        assert reader.slice("layers.1.w")[-1].equal(ALL["layers.1.w"][-1])
        assert reader.bytes_read - before == 600


def test_the_index_decides_where_a_name_is_in_two_files(directory):
    other = {"norm": torch.zeros(7), "stray": torch.ones(1)}
    veturboio.save_file({**SHARDS[0], **other}, directory / "model-00001-of-00003.safetensors")
    assert_same(veturboio.load(directory), ALL)
    with veturboio.open(directory) as reader:
        assert "stray" not in reader
        assert reader.tensor("norm").equal(ALL["norm"])
    (directory / "model.safetensors.index.json").unlink()
    with pytest.raises(veturboio.FileFormatError, match=r'"norm" is in model-00001-of-00003.safetensors and in model-00003'):
        veturboio.load(directory)


def test_the_operator_names_both_files_of_a_repeated_name(directory):
    models = [torch.ops.veturbo.open_model(str(directory / "model-00001-of-00003.safetensors"))] * 2
    with pytest.raises(ValueError, match=r'model-00001.*: the tensor "layers\.0\.w" is in .*model-00001.* as well|"embed" is in'):
        torch.ops.veturbo.start_load_models(models)
    loaded = torch.ops.veturbo.start_load_models(models, names=[["embed"], ["layers.0.w"]]).result()
    assert_same(loaded, SHARDS[0])
    with pytest.raises(ValueError, match="2 files need as many lists of names, not 1"):
        torch.ops.veturbo.start_load_models(models, names=[["embed"]])


def test_a_damaged_shard_is_named(directory):
    (directory / "model-00002-of-00003.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(veturboio.FileFormatError, match=r"model-00002-of-00003\.safetensors") as caught:
        veturboio.load(directory)
    assert caught.value.filename.endswith("model-00002-of-00003.safetensors")
    torch.save({}, directory / "model-00002-of-00003.safetensors")
    with pytest.raises(veturboio.FileFormatError, match=r"model-00002-of-00003\.safetensors.*torch\.save"):
        veturboio.load(directory)


def test_a_shard_that_is_cut_short_while_it_is_read(directory):
    path = directory / "model-00002-of-00003.safetensors"
    models = [torch.ops.veturbo.open_model(str(file)) for file in sorted(directory.glob("*.safetensors"))]
    with path.open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(RuntimeError, match=r"model-00002-of-00003\.safetensors"):
        torch.ops.veturbo.start_load_models(models).result()


def test_names_and_a_predicate(directory):
    small = {name: tensor for name, tensor in ALL.items() if name.startswith("small.")}
    for file in directory, directory / "model-00003-of-00003.safetensors":
        assert_same(veturboio.load(file, names=lambda name: name.startswith("small.")), small)
        assert_same(veturboio.load(file, names=["norm", "small.007"]), {name: ALL[name] for name in ("norm", "small.007")})
        assert veturboio.load(file, names=[]) == {}
        with pytest.raises(ValueError, match=re.escape(f"{file}: the model has no tensor named no, nope")):
            veturboio.load(file, names=["nope", "norm", "no"])
    with pytest.raises(TypeError, match="names must be a list of names or a function"):
        veturboio.load(directory, names="norm")
    with pytest.raises(TypeError, match="the name 5 of a tensor must be a str, not a int"):
        veturboio.load(directory, names=[5])


def test_names_that_saving_left_out(tmp_path):
    shared = torch.randn(4, 4)
    veturboio.save_file({"a": shared, "b": shared, "c": torch.ones(1)}, tmp_path / "model", force_save_shared_tensor=True)
    both = veturboio.load(tmp_path / "model", names=["a", "b"])
    assert both["a"].data_ptr() == both["b"].data_ptr()
    assert_same(veturboio.load(tmp_path / "model", names=["b"]), {"b": shared})
    assert_same(veturboio.load(tmp_path / "model", names=lambda name: name == "b"), {"b": shared})


def test_names_of_a_file_of_torch_save(tmp_path):
    torch.save({"a": torch.ones(2), "b": torch.zeros(3), "step": 5}, tmp_path / "model.pt")
    assert_same(veturboio.load(tmp_path / "model.pt", names=["a"]), {"a": torch.ones(2)})
    assert veturboio.load(tmp_path / "model.pt", names=lambda name: name == "step") == {"step": 5}
    with pytest.raises(ValueError, match=r"model\.pt: the model has no tensor named c"):
        veturboio.load(tmp_path / "model.pt", names=["a", "c"])
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list, not a state dict: load it without names"):
        veturboio.load(tmp_path / "list.pt", names=["a"])


class Stream:
    """The least that a file object can be."""

    def __init__(self, data):
        self.data = data

    def read(self):
        return self.data


SOURCES = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "read-only view": lambda data: memoryview(bytearray(data)).toreadonly(),
    "every other byte": lambda data: memoryview(bytes(byte for one in data for byte in (one, 0)))[::2],
    "BytesIO": io.BytesIO,
    "stream": Stream,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_model_in_memory(tmp_path, source):
    tensors = one_of_each(3, 4)
    veturboio.save_file(tensors, tmp_path / "model")
    data = (tmp_path / "model").read_bytes()
    loaded = veturboio.load(source(data))
    assert_same(loaded, tensors)
    loaded["float32"].zero_()
    assert (tmp_path / "model").read_bytes() == data
    assert_same(veturboio.load(source(data), names=["int8"]), {"int8": tensors["int8"]})
    with pytest.raises(ValueError, match=r"^<memory>: this kind of storage cannot be mapped"):
        veturboio.load(source(data), mmap=True)


def test_an_open_file(tmp_path):
    veturboio.save_file(SHARDS[0], tmp_path / "model")
    with (tmp_path / "model").open("rb") as file:
        assert_same(veturboio.load(file), SHARDS[0])
    with (tmp_path / "model").open(encoding="latin-1") as text, pytest.raises(TypeError, match=r"its read\(\) gave a str"):
        veturboio.load(text)


def test_the_tensors_are_copies_of_what_was_in_memory(tmp_path):
    veturboio.save_file({"t": torch.arange(4, dtype=torch.uint8)}, tmp_path / "model")
    data = bytearray((tmp_path / "model").read_bytes())
    tensor = veturboio.load(data)["t"]
    data[-4:] = bytes(4)
    assert tensor.tolist() == [0, 1, 2, 3]


def test_bytes_that_are_a_path(tmp_path):
    veturboio.save_file(SHARDS[0], tmp_path / "model")
    assert_same(veturboio.load(bytes(tmp_path / "model")), SHARDS[0])


def test_a_torch_file_in_memory(tmp_path):
    buffer = io.BytesIO()
    torch.save(SHARDS[0], buffer)
    assert_same(veturboio.load(buffer.getvalue()), SHARDS[0])
    buffer.seek(0)
    assert_same(veturboio.load(buffer, names=["embed"]), {"embed": SHARDS[0]["embed"]})
    evil = io.BytesIO()
    torch.save({"f": threading.Lock}, evil)
    with pytest.raises(pickle.UnpicklingError):
        veturboio.load(evil.getvalue())


@pytest.mark.parametrize("data", [b"\0" * 8, bytearray(), bytearray(b"{}"), b"\xff" * 7 + b"\0"], ids=repr)
def test_what_is_in_memory_is_no_model(data):
    with pytest.raises(veturboio.FileFormatError, match=r"^<memory>: "):
        veturboio.load(data)


def test_a_model_in_memory_is_not_decrypted():
    with pytest.raises(ValueError, match=r"^<memory>: only files are decrypted"):
        veturboio.load(bytearray(100), **KEY)


def test_a_file_is_serialized_as_it_would_be_saved(tmp_path):
    veturboio.save_file(ALL, tmp_path / "model", metadata={"a": "b"})
    data = torch.ops.veturbo.serialize(ALL, metadata={"a": "b"})
    assert data.numpy().tobytes() == (tmp_path / "model").read_bytes()
    strided = {"t": torch.arange(6).reshape(2, 3).t()}
    veturboio.save_file(strided, tmp_path / "model")
    assert torch.ops.veturbo.serialize(strided).numpy().tobytes() == (tmp_path / "model").read_bytes()
    with pytest.raises(ValueError, match='tensor "m": is on the meta device'):
        torch.ops.veturbo.serialize({"m": torch.empty(1, device="meta")})
