"""open(): a model that is read a part at a time."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
import torch
from safetensors_files import entry, with_header
from sample_tensors import assert_same, one_of_each, sample
from sfcs_cluster import Folder

import veturboio

KEY = {"key": bytes(16), "iv": bytes(range(16))}
MATRIX = torch.arange(512 * 8192, dtype=torch.int16).reshape(512, 8192)
TENSORS = {"matrix": MATRIX, "cube": sample(torch.bfloat16, 6, 5, 7), "scalar": torch.tensor(5.0), "empty": torch.empty(0, 3)}
HALF_PAGE = 2048

pytestmark = pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")


@pytest.fixture(params=["local", "encrypted", "sfcs", "memory", "pread"])
def reader(request: pytest.FixtureRequest, tmp_path: Path):
    """The same model in every kind of storage."""
    options = KEY if request.param == "encrypted" else {}
    file = tmp_path / "model.safetensors"
    if request.param == "sfcs":
        file = request.getfixturevalue("sfcs").uri("model.safetensors")
    veturboio.save_file(TENSORS, file, metadata={"format": "pt"}, **options)
    if request.param == "memory":
        file = file.read_bytes()
    if request.param == "pread":
        options = {"use_direct_io": True, "num_thread": 2}
    with veturboio.open(file, **options) as model:
        yield model


def test_the_header(reader):
    assert reader.keys() == ["empty", "scalar", "cube", "matrix"]
    assert reader.metadata() == {"format": "pt"}
    assert reader.info("cube") == veturboio.TensorInfo("cube", "BF16", (6, 5, 7), 420)
    assert len(reader) == 4
    assert "cube" in reader
    assert "nope" not in reader


def test_whole_tensors(reader):
    assert_same(reader.tensors(), TENSORS)
    assert_same(reader.tensors(["cube", "scalar", "cube"]), {name: TENSORS[name] for name in ("cube", "scalar")})
    assert reader.tensors([]) == {}
    assert_same({"cube": reader.tensor("cube")}, {"cube": TENSORS["cube"]})
    if reader.is_mappable:
        assert_same(reader.tensors(mmap=True), TENSORS)


INDICES = [
    ...,
    (),
    3,
    -1,
    (5, 100),
    (slice(None), 7),
    slice(3, 9),
    slice(-5, None, 2),
    (slice(10, 100, 3), slice(8000, None)),
    (slice(None), slice(0, 4096)),
    (slice(None), slice(None, None, 100)),
    (..., slice(1, 2)),
    (None, slice(2, 4), None),
    slice(4, 4),
    slice(1000, 2000),
    [1, 5, 2],
    (slice(None), [3, 4]),
    torch.tensor([True, False] * 256),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_a_slice_is_what_pytorch_makes_of_the_tensor(reader, index):
    part = reader.slice("matrix")[index]
    assert_same({"part": part}, {"part": MATRIX[index]})
    assert part.is_contiguous()
    assert part.untyped_storage().nbytes() == part.nbytes, "it holds no more than itself"


@pytest.mark.parametrize("index", [512, (0, 0, 0), slice(None, None, -1), "name", (0, -8193)], ids=str)
def test_a_wrong_index_is_pytorchs_error(reader, index):
    with pytest.raises(Exception) as expected:  # noqa: PT011  whatever it is
        MATRIX[index]
    with pytest.raises(expected.type, match=f"^{re.escape(str(expected.value))}$"):
        reader.slice("matrix")[index]


def test_every_dtype_in_parts(tmp_path):
    tensors = one_of_each(6, 10)
    veturboio.save_file(tensors, tmp_path / "model")
    with veturboio.open(tmp_path / "model") as reader:
        for name, tensor in tensors.items():
            part = reader.slice(name)
            assert (part.shape, part.dtype) == (tensor.shape, tensor.dtype)
            for index in (slice(2, 5), (slice(None), slice(1, 10, 4)), (3, 3)):
                # Not all dtypes can be indexed by themselves; as bytes all can.
                raw = tensor.view(torch.uint8).reshape(6, 10, -1)[index]
                found = part[index]
                assert found.dtype == tensor.dtype
                assert found.reshape(-1).view(torch.uint8).tolist() == raw.reshape(-1).tolist()


def test_a_tensor_that_lies_askew(tmp_path):
    tensor = torch.arange(100.0)
    text = json.dumps({"t": entry("F32", [100], 0, 400)})
    text += " " * (5 - (len(text) + 8) % 4)
    (tmp_path / "model").write_bytes(len(text).to_bytes(8, "little") + text.encode() + tensor.numpy().tobytes())
    with veturboio.open(tmp_path / "model") as reader:
        assert reader.tensor("t", mmap=True).tolist() == tensor.tolist()
        assert reader.slice("t")[10:20].tolist() == tensor[10:20].tolist()


def bytes_of(reader, read):
    before = reader.bytes_read
    read()
    return reader.bytes_read - before


@pytest.mark.parametrize("reader", ["local", "encrypted"], indirect=True)
def test_no_more_is_read_than_was_asked_for(reader):
    assert bytes_of(reader, lambda: reader.tensor("cube")) == TENSORS["cube"].nbytes
    part = reader.slice("matrix")
    assert bytes_of(reader, lambda: part[100:200]) == MATRIX[100:200].nbytes
    assert bytes_of(reader, lambda: part[7]) == MATRIX[7].nbytes
    assert bytes_of(reader, lambda: part[:, 1000:4000]) == MATRIX[:, 1000:4000].nbytes, "what lies between is more than a page"
    assert bytes_of(reader, lambda: part[::2, 5]) == MATRIX[::2, 5].nbytes
    assert bytes_of(reader, lambda: part[5:5]) == 0
    width = 8192 - HALF_PAGE // 2
    assert MATRIX[:, :width].nbytes < bytes_of(reader, lambda: part[:, :width]) < MATRIX.nbytes, "half pages are read over"
    assert bytes_of(reader, lambda: part[0, ::16]) == MATRIX[0].nbytes - 30
    assert bytes_of(reader, lambda: part[[0, 1]]) == MATRIX.nbytes, "all of it, for an index that is no slice"


@pytest.mark.parametrize("reader", ["sfcs"], indirect=True)
def test_more_is_read_over_where_a_call_takes_long(reader):
    part = reader.slice("matrix")
    assert 0.98 * MATRIX.nbytes < bytes_of(reader, lambda: part[:, 1000:4000]) < MATRIX.nbytes, "all but what is between reads"
    assert bytes_of(reader, lambda: part[100:200]) == MATRIX[100:200].nbytes


def test_small_tensors_with_others_between_them_are_read_together(tmp_path):
    tensors = {f"t{i:03}": torch.full((100,), i, dtype=torch.int32) for i in range(100)}
    veturboio.save_file(tensors, tmp_path / "model")
    every_other = sorted(tensors)[::2]
    with veturboio.open(tmp_path / "model") as reader:
        assert bytes_of(reader, lambda: reader.tensors(every_other)) == 99 * 400
        assert_same(reader.tensors(every_other), {name: tensors[name] for name in every_other})


def test_what_was_handed_out_outlives_the_reader_and_the_file(tmp_path):
    path = tmp_path / "model"
    veturboio.save_file(TENSORS, path)
    with veturboio.open(path) as reader:
        read, mapped = reader.tensors(), reader.tensors(mmap=True)
        rows = reader.slice("matrix")[3:5]
    path.unlink()
    assert_same(read, TENSORS)
    assert_same(mapped, TENSORS)
    assert rows.equal(MATRIX[3:5])


def test_to_gives_a_reader_of_the_same_open_files(tmp_path):
    veturboio.save_file(TENSORS, tmp_path / "model")
    with veturboio.open(tmp_path / "model") as model:
        (tmp_path / "model").unlink()
        other, elsewhere = model.to("cpu", num_thread=1), model.to("meta")
    assert_same(other.tensors(), TENSORS)
    assert {name: tensor.is_meta for name, tensor in elsewhere.tensors().items()} == dict.fromkeys(TENSORS, True)
    with pytest.raises(ValueError, match="the reader is closed"):
        model.to("cpu")


def test_mapped_tensors_share_one_mapping_which_never_reaches_the_file(tmp_path):
    path = tmp_path / "model"
    veturboio.save_file(TENSORS, path)
    with veturboio.open(path) as reader:
        first, again = reader.tensor("cube", mmap=True), reader.tensor("cube", mmap=True)
        first.zero_()
        assert again.count_nonzero() == 0
        assert reader.tensor("cube").equal(TENSORS["cube"]) or TENSORS["cube"].isnan().any()
    assert_same(veturboio.load(path), TENSORS)


def test_a_closed_reader_says_so(tmp_path):
    veturboio.save_file(TENSORS, tmp_path / "model")
    reader = veturboio.open(tmp_path / "model")
    part = reader.slice("matrix")
    assert repr(reader) == f"ModelReader('{tmp_path}/model', 4 tensors)"
    reader.close()
    reader.close()
    assert repr(reader) == f"ModelReader('{tmp_path}/model', closed)"
    for use in (
        reader.keys,
        reader.metadata,
        reader.tensors,
        lambda: reader.tensor("cube"),
        lambda: reader.info("cube"),
        lambda: reader.slice("cube"),
        lambda: reader.bytes_read,
        lambda: reader.is_mappable,
        lambda: part[0],
        reader.__enter__,
    ):
        with pytest.raises(ValueError, match=f"^{tmp_path}/model: the reader is closed$"):
            use()


def test_a_name_that_the_model_lacks(reader):
    for use in (reader.tensor, reader.info, reader.slice):
        with pytest.raises(ValueError, match=r": the model has no tensor named nope$"):
            use("nope")
    with pytest.raises(ValueError, match=r": the model has no tensor named no, nope$"):
        reader.tensors(["nope", "cube", "no"])
    with pytest.raises(TypeError, match="names must be a list of names or a function that tells which to load, not a str"):
        reader.tensors("cube")


def test_a_file_of_torch_save_cannot_be_read_in_parts(tmp_path):
    torch.save(TENSORS, tmp_path / "model.pt")
    with pytest.raises(veturboio.FileFormatError, match=r"model\.pt: this is a file of torch\.save.*veturboio\.convert"):
        veturboio.open(tmp_path / "model.pt")


def test_a_file_that_ends_before_its_data(tmp_path):
    path = tmp_path / "model"
    veturboio.save_file(TENSORS, path)
    with veturboio.open(path) as reader:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        with pytest.raises(OSError, match=r"the file ends|end of file"):
            reader.slice("matrix")[511]


def test_many_threads_with_one_reader(tmp_path):
    veturboio.save_file(TENSORS, tmp_path / "model")
    failed = []
    with veturboio.open(tmp_path / "model") as reader:

        def read(row):
            for _ in range(20):
                if not reader.slice("matrix")[row].equal(MATRIX[row]) or reader.tensor("scalar").item() != 5:
                    failed.append(row)

        threads = [threading.Thread(target=read, args=(row,)) for row in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed


@pytest.mark.parametrize(
    ("offset", "sizes", "strides"),
    [
        (512 * 8192, [1], [1]),
        (0, [513, 8192], [8192, 1]),
        (0, [8192, 512], [1, 8192]),
        (-1, [1], [1]),
        (0, [-1], [1]),
        (0, [2], [0]),
        (0, [2], [1, 1]),
    ],
)
def test_the_operator_refuses_what_is_no_view(tmp_path, offset, sizes, strides):
    veturboio.save_file(TENSORS, tmp_path / "model")
    model = torch.ops.veturbo.open_model(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="view"):
        torch.ops.veturbo.start_load_views(model, ["matrix"], [offset], [sizes], [strides])


def test_the_operator_reads_parts_of_many_tensors_at_once(tmp_path):
    veturboio.save_file(TENSORS, tmp_path / "model")
    model = torch.ops.veturbo.open_model(str(tmp_path / "model"))
    names, views = ["matrix", "cube", "matrix"], [MATRIX[4:6], TENSORS["cube"][:, 2:3], MATRIX[100, 5:9]]
    arguments = [[v.storage_offset() for v in views], [list(v.shape) for v in views], [list(v.stride()) for v in views]]
    got_names, parts = torch.ops.veturbo.start_load_views(model, names, *arguments).result_lists()
    assert got_names == names
    assert [part.tolist() for part in parts] == [view.tolist() for view in views]
    with pytest.raises(ValueError, match="parts of a tensor overlap: load them one after the other"):
        torch.ops.veturbo.start_load_views(model, ["matrix"] * 2, [0, 5], [[6], [6]], [[1], [1]])


def test_torchscript_has_it(tmp_path):
    veturboio.save_file(TENSORS, tmp_path / "model")

    @torch.jit.script
    def first_rows(file: str) -> torch.Tensor:
        model = torch.ops.veturbo.open_model(file)
        job = torch.ops.veturbo.start_load_views(model, ["matrix"], [0], [[2, 8192]], [[8192, 1]])
        whole = torch.ops.veturbo.start_load_models([model], names=[["matrix"]])
        return torch.cat([job.result_lists()[1][0], whole.result()["matrix"][2:4]])

    assert first_rows(str(tmp_path / "model")).equal(MATRIX[:4])


def test_a_dtype_that_pytorch_lacks_spoils_only_its_own_tensor(tmp_path):
    entries = {"six": entry("F6_E2M3", [4], 0, 3), "fine": entry("U8", [2], 3, 5)}
    (tmp_path / "model").write_bytes(with_header(entries, bytes(range(5))))
    with veturboio.open(tmp_path / "model") as reader:
        assert reader.info("six").dtype == "F6_E2M3"
        assert reader.tensor("fine").tolist() == [3, 4]
        for use in (reader.tensor, reader.slice):
            with pytest.raises(veturboio.FileFormatError, match='tensor "six": PyTorch has no dtype for F6_E2M3'):
                use("six")


def test_a_remote_model_is_not_mapped(sfcs: Folder):
    veturboio.save_file(TENSORS, sfcs.uri("model"))
    with veturboio.open(sfcs.uri("model")) as reader:
        assert not reader.is_mappable
