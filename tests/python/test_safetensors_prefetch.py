"""safe_open.prefetch(): tensors that are read in the background and handed out once each."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors_files import entry, with_header
from sample_tensors import assert_same, one_of_each, sample

import veturboio
from veturboio.safetensors import SafetensorError, _prefetch, safe_open

TENSORS = {
    "matrix": torch.arange(12.0).reshape(3, 4),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 3),
    **one_of_each(5, 2),
}


@pytest.fixture
def model(tmp_path):
    veturboio.save_file(TENSORS, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def small_batches(monkeypatch):
    """Every tensor is a batch of its own."""
    monkeypatch.setattr(_prefetch, "_BATCH_BYTES", 1)


def prefetch_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("veturboio-prefetch")]


@pytest.mark.parametrize("backend", ["mmap", "pread"])
@pytest.mark.parametrize("batch_bytes", [1, 50, 64 << 20])
def test_all_tensors_come_in_the_order_of_the_file(model, monkeypatch, backend, batch_bytes):
    monkeypatch.setattr(_prefetch, "_BATCH_BYTES", batch_bytes)
    with safe_open(model, "pt", backend=backend) as file, file.prefetch() as loader:
        assert loader.names() == file.offset_keys()
        assert len(loader) == len(TENSORS)
        found = list(loader)
    assert [name for name, _ in found] == loader.names()
    assert_same(dict(found), TENSORS)


def test_tensors_can_be_taken_in_any_order(model, small_batches):
    with safe_open(model, "pt").prefetch() as loader:
        assert_same({name: loader.take(name) for name in reversed(loader.names())}, TENSORS)


def test_iterating_leaves_out_what_was_taken(model, small_batches):
    with safe_open(model, "pt").prefetch() as loader:
        loader.take("matrix")
        found = dict(loader)
        assert found.keys() == TENSORS.keys() - {"matrix"}
        assert list(loader) == []


ROWS = {
    "all": slice(None),
    "some": slice(1, 3),
    "from a row on": slice(2, None),
    "up to a row": slice(None, 2),
    "the last": slice(-1, None),
    "all but the last": slice(0, -1),
    "none": slice(2, 2),
    "backwards": slice(2, 1),
    "of step 1": slice(0, 2, 1),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_a_plan_names_tensors_and_rows(model, rows):
    with safe_open(model, "pt").prefetch({"scalar": None, "matrix": rows, "float32": None, "int64": rows}) as loader:
        assert set(loader.names()) == {"scalar", "matrix", "float32", "int64"}
        expected = {"matrix": TENSORS["matrix"][rows], "int64": TENSORS["int64"][rows]}
        assert_same({name: loader.take(name) for name in expected}, expected)
        assert_same(dict(loader), {"scalar": TENSORS["scalar"], "float32": TENSORS["float32"]})


def test_the_rows_alone_are_kept_in_memory(model):
    with safe_open(model, "pt").prefetch({"matrix": slice(1, 2)}) as loader:
        assert loader.take("matrix").untyped_storage().nbytes() < TENSORS["matrix"].nbytes


def test_tensors_go_to_the_device_that_is_named(model):
    with safe_open(model, "pt") as file:
        assert file.prefetch({"matrix": None}, device="meta").take("matrix").is_meta
        assert not file.prefetch({"matrix": None}).take("matrix").is_meta


def test_several_loaders_of_one_file(model):
    with safe_open(model, "pt") as file:
        loaders = [file.prefetch(threads=threads) for threads in (1, 2, 8)]
        assert file.get_tensor("scalar") == 2.5
        for loader in loaders:
            assert_same(dict(loader), TENSORS)


def test_what_was_handed_out_outlives_the_loader_and_the_file(model):
    with safe_open(model, "pt") as file:
        loader = file.prefetch()
    tensor = loader.take("matrix")
    loader.close()
    del file, loader
    model.unlink()
    assert torch.equal(tensor.add_(1), TENSORS["matrix"] + 1)


def test_a_tensor_is_handed_out_once(model):
    with safe_open(model, "pt").prefetch() as loader:
        loader.take("matrix")
        with pytest.raises(SafetensorError, match=r"^tensor already delivered \(prefetch hands each tensor out once"):
            loader.take("matrix")
        with pytest.raises(SafetensorError, match=r"^tensor more is not in the prefetch plan$"):
            loader.take("more")


def test_threads_that_take_the_same_tensors_get_each_once(model, small_batches):
    with safe_open(model, "pt").prefetch() as loader:

        def take(name):
            try:
                return loader.take(name)
            except SafetensorError:
                return None

        with ThreadPoolExecutor(16) as pool:
            taken = list(pool.map(take, loader.names() * 8))
    assert sum(tensor is not None for tensor in taken) == len(TENSORS)


def test_a_closed_loader_gives_nothing_and_its_thread_is_gone(model, small_batches):
    loader = safe_open(model, "pt").prefetch()
    loader.close()
    loader.close()
    assert prefetch_threads() == []
    with pytest.raises(SafetensorError, match=r"^prefetch loader closed$"):
        loader.take("matrix")
    with pytest.raises(SafetensorError, match=r"^prefetch loader closed$"):
        next(iter(loader))


def test_no_file_stays_open(model):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with safe_open(model, "pt") as file, file.prefetch() as loader:
        next(iter(loader))
    del file, loader
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_a_loader_that_nobody_has_stops_reading(tmp_path, monkeypatch):
    begun, go_on, read = threading.Event(), threading.Event(), []

    def slow(reader, plan, filename):
        begun.set()
        go_on.wait()
        read.extend(plan)
        return {}

    monkeypatch.setattr(_prefetch, "_read", slow)
    monkeypatch.setattr(_prefetch, "_BATCH_BYTES", 1)
    veturboio.save_file(TENSORS, tmp_path / "model")
    loader = safe_open(tmp_path / "model", "pt").prefetch()
    begun.wait()
    del loader
    gc.collect()
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("veturboio-prefetch"):
            thread.join()
    assert len(read) == 1


def test_an_error_of_the_read_is_raised_by_whoever_takes(tmp_path):
    veturboio.save_file({"w": sample(torch.float32, 1 << 20)}, tmp_path / "model")
    file = safe_open(tmp_path / "model", "pt")
    os.truncate(tmp_path / "model", 1 << 20)
    with pytest.raises((OSError, SafetensorError)), file.prefetch() as loader:
        loader.take("w")


FAULTS = {
    "prefetch plan selects no tensors": {},
    "File does not contain tensor missing": {"missing": None},
    "prefetch plan keys must be tensor names": {3: None},
    "prefetch plan values must be None or a slice, got <class 'int'> for matrix": {"matrix": 3},
    "prefetch plan values must be None or a slice, got <class 'ellipsis'> for matrix": {"matrix": ...},
    "prefetch plan slices must have step 1, got 2 for matrix": {"matrix": slice(0, 3, 2)},
    "prefetch plan slices must have step 1, got -1 for matrix": {"matrix": slice(0, 3, -1)},
    "cannot slice rows of the 0-d tensor scalar": {"scalar": slice(0, 1)},
    "prefetch plan slice stop 4 for matrix is out of range for 3 rows": {"matrix": slice(0, 4)},
    "prefetch plan slice start -4 for matrix is out of range for 3 rows": {"matrix": slice(-4, None)},
    "prefetch plan slice bounds for matrix must be integers or None": {"matrix": slice(0, 1.5)},
}


@pytest.mark.parametrize(("text", "plan"), FAULTS.items(), ids=FAULTS)
def test_a_plan_that_cannot_be_is_refused_before_anything_is_read(model, text, plan):
    """The texts are those of safetensors 0.9, which has them where it finds CUDA."""
    with pytest.raises(SafetensorError) as raised:
        safe_open(model, "pt").prefetch(plan)
    assert str(raised.value) == text
    assert prefetch_threads() == []


def test_what_else_cannot_be(model, tmp_path):
    (tmp_path / "odd").write_bytes(with_header({"odd": entry("F6_E2M3", [4], 0, 3)}, bytes(3)))
    for text, call in {
        'prefetch is only compatible with framework="pt"': lambda: safe_open(model, "np").prefetch(),
        "prefetch cannot hand out dtype F6_E2M3: torch has no matching dtype": lambda: safe_open(
            tmp_path / "odd", "pt"
        ).prefetch(),
        "device tape is invalid": lambda: safe_open(model, "pt").prefetch(device="tape"),
        "File is closed": lambda: closed(model).prefetch(),
    }.items():
        with pytest.raises(SafetensorError) as raised:
            call()
        assert str(raised.value) == text
    with pytest.raises(TypeError, match="'list' object is not an instance of 'dict'"):
        safe_open(model, "pt").prefetch(["matrix"])
    with pytest.raises(TypeError):
        safe_open(model, "pt").prefetch({"matrix": None}, "cpu")
    with pytest.raises(TypeError):
        safe_open(model, "pt").prefetch(threads="many")


def closed(model):
    with safe_open(model, "pt") as file:
        return file


def test_a_file_without_tensors_has_an_empty_loader(tmp_path):
    veturboio.save_file({}, tmp_path / "none")
    with safe_open(tmp_path / "none", "pt").prefetch() as loader:
        assert (loader.names(), len(loader), list(loader)) == ([], 0, [])
