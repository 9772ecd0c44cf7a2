"""stream(): tensors as they come."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import torch
from fresh_process import run_python
from sample_tensors import assert_same
from sfcs_cluster import Folder

import veturboio
from fakes.slow_mount import NoMountError, SlowFs

KEY = {"key": bytes(16), "iv": bytes(range(16))}
TENSORS = {f"t{i:02}": torch.full((1 << 20,), i, dtype=torch.int32) for i in range(40)} | {"empty": torch.empty(0)}

pytestmark = pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")


@pytest.mark.parametrize("max_host_bytes", [None, 100 << 20, 13 << 20])
@pytest.mark.parametrize("kind", ["plain", "encrypted", "sfcs", "memory"])
def test_every_tensor_comes_once_in_the_order_of_the_data(tmp_path, request, kind, max_host_bytes):
    options = KEY if kind == "encrypted" else {}
    file = request.getfixturevalue("sfcs").uri("model") if kind == "sfcs" else tmp_path / "model"
    veturboio.save_file(TENSORS, file, **options)
    source = file.read_bytes() if kind == "memory" else file
    pairs = list(veturboio.stream(source, max_host_bytes=max_host_bytes, **options))
    assert_same(dict(pairs), TENSORS)
    assert [name for name, _ in pairs] == list(veturboio.load(file, **options))


def test_of_several_files_and_some_names(tmp_path):
    for index, chunk in enumerate(itertools.batched(TENSORS.items(), 10) if hasattr(itertools, "batched") else _tens()):
        veturboio.save_file(dict(chunk), tmp_path / f"model-{index}.safetensors")
    assert_same(dict(veturboio.stream(tmp_path)), TENSORS)
    some = {name: tensor for name, tensor in TENSORS.items() if name.endswith("7")}
    assert_same(dict(veturboio.stream(tmp_path, names=lambda name: name.endswith("7"))), some)
    assert list(veturboio.stream(tmp_path, names=[])) == []


def _tens():
    items = list(TENSORS.items())
    return [items[begin : begin + 10] for begin in range(0, len(items), 10)]


def test_names_that_saving_left_out(tmp_path):
    shared = torch.randn(4)
    veturboio.save_file({"a": shared, "b": shared, "c": torch.ones(1)}, tmp_path / "model", force_save_shared_tensor=True)
    pairs = dict(veturboio.stream(tmp_path / "model"))
    assert pairs.keys() == {"a", "b", "c"}
    assert pairs["a"].data_ptr() == pairs["b"].data_ptr()
    assert_same(dict(veturboio.stream(tmp_path / "model", names=["b"])), {"b": shared})


def test_the_first_tensors_come_while_the_rest_is_read_and_no_more_is_read_than_needed(tmp_path):
    """40 tensors of 4 MiB through a window of 32 MiB, of which two are read and one is handed out."""
    veturboio.save_file(TENSORS, tmp_path / "model")
    try:
        mount = SlowFs(tmp_path, delay_ms=1, mb_per_s=100)
        mount.__enter__()
    except NoMountError as error:
        pytest.skip(str(error))
    try:
        stream = veturboio.stream(mount / "model", max_host_bytes=40 << 20, use_direct_io=True)
        next(stream)
        time.sleep(0.5)
        fetched = sum(read.size for read in mount.reads())
        assert fetched < 80 << 20, "a consumer that is slow is not buried"
        assert len(list(stream)) == len(TENSORS) - 1
        stream = veturboio.stream(mount / "model", max_host_bytes=40 << 20, use_direct_io=True)
        before = sum(read.size for read in mount.reads())
        next(stream)
        stream.close()
        time.sleep(0.5)
        stopped = sum(read.size for read in mount.reads())
        time.sleep(0.5)
        assert sum(read.size for read in mount.reads()) == stopped, "who leaves stops the reading"
        assert stopped - before < 80 << 20
    finally:
        mount.__exit__(None, None, None)


PEAK = """
import resource, sys, torch, veturboio
torch.empty(1).add_(1)
for name, tensor in veturboio.stream(sys.argv[1], max_host_bytes=None if sys.argv[2] == "-" else int(sys.argv[2])):
    break
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = 0
for name, tensor in veturboio.stream(sys.argv[1], max_host_bytes=None if sys.argv[2] == "-" else int(sys.argv[2])):
    total += int(tensor[0])
print(total, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("limit", ["-", str(40 << 20)])
def test_memory_does_not_grow_with_the_model(shm_path, limit):
    tensors = {f"t{i:03}": torch.full((1 << 20,), i, dtype=torch.int32) for i in range(128)}
    veturboio.save_file(tensors, shm_path / "model")
    total, grown = run_python(PEAK, str(shm_path / "model"), limit).stdout.split()
    assert int(total) == sum(range(128))
    assert int(grown) < 200 << 20, "of 512 MiB"


def test_errors_come_before_the_loop_where_they_are_known(tmp_path):
    veturboio.save_file(TENSORS, tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        veturboio.stream(tmp_path / "missing")
    with pytest.raises(ValueError, match="has no tensor named nope"):
        veturboio.stream(tmp_path / "model", names=["nope"])
    with pytest.raises(MemoryError, match=r"model: a tensor has 4194304 bytes, and max_host_bytes is 4000000"):
        veturboio.stream(tmp_path / "model", max_host_bytes=4_000_000)
    torch.save(TENSORS, tmp_path / "model.pt")
    with pytest.raises(veturboio.FileFormatError, match="can only be loaded as a whole"):
        veturboio.stream(tmp_path / "model.pt")


def test_an_error_of_the_data_comes_in_the_loop(tmp_path: Path):
    veturboio.save_file(TENSORS, tmp_path / "model")
    stream = veturboio.stream(tmp_path / "model", max_host_bytes=24 << 20, use_direct_io=False)
    next(stream)
    with (tmp_path / "model").open("r+b") as file:
        file.truncate(100 << 20)
    with pytest.raises(OSError, match="model"):
        list(stream)


def test_a_remote_stream_may_be_left_early(sfcs: Folder):
    veturboio.save_file(TENSORS, sfcs.uri("model"))
    for name, tensor in veturboio.stream(sfcs.uri("model")):
        assert tensor.equal(TENSORS[name])
        break
