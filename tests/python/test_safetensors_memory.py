"""Whose memory the tensors of the drop-in are, how long it lives, and who may use a file at once."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sample_tensors import assert_same, one_of_each, sample

import veturboio
from veturboio.safetensors import SafetensorError, safe_open
from veturboio.safetensors.torch import load_file, save_file

TENSORS = {"w": torch.arange(10_000), "b": torch.ones(5000)}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    return path


def is_mapped(path):
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        return any(line.rstrip().endswith(str(path)) for line in maps)


def test_a_tensor_is_a_view_of_a_mapping_or_with_pread_has_memory_of_its_own(model):
    with safe_open(model, "pt") as file:
        mapped = file.get_tensor("w")
        assert is_mapped(model)
    del file, mapped
    with safe_open(model, "pt", backend="pread") as file:
        owned = file.get_tensor("w")
        part = file.get_slice("b")[10:20]
        everything = file.get_tensors()
        assert not is_mapped(model)
    assert_same({**everything, "w": owned}, TENSORS)
    assert part.eq(1).all()


def test_load_file_maps_what_the_page_cache_holds_and_with_pread_reads_into_memory_of_the_tensors(model):
    for backend, maps in {"mmap": True, "pread": False}.items():
        tensors = load_file(model, backend=backend)
        assert is_mapped(model) == maps
        assert_same(tensors, TENSORS)
        tensors["w"].zero_()
        del tensors


def test_load_file_reads_what_is_on_the_disk_still(tmp_path):
    """In larger pieces than a mapping asks for."""
    path = tmp_path / "model.safetensors"
    tensors = {"w": torch.arange(8 << 20, dtype=torch.int32)}
    save_file(tensors, path)
    kind = subprocess.run(["stat", "--file-system", "--format=%T", path], capture_output=True, text=True, check=True).stdout
    if kind.strip() in ("tmpfs", "ramfs"):
        pytest.skip("the temporary directory is in memory")
    with path.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    loaded = load_file(path)
    assert not is_mapped(path)
    assert_same(loaded, tensors)


def test_tensors_and_slices_are_valid_after_the_file_is_closed_and_removed(model):
    with safe_open(model, "pt") as file:
        tensor, everything, lazy = file.get_tensor("w"), file.get_tensors(), file.get_slice("w")
    del file
    model.unlink()
    assert_same({**everything, "w": tensor}, TENSORS)
    assert lazy[7_000] == 7_000


def test_a_mapping_ends_with_its_last_tensor(model):
    with safe_open(model, "pt") as file:
        tensor = file.get_tensor("b")
    del file
    assert is_mapped(model)
    del tensor
    assert not is_mapped(model)


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_a_change_in_place_does_not_reach_the_file(model, backend):
    before = model.read_bytes()
    with safe_open(model, "pt", backend=backend) as file:
        file.get_tensor("w").zero_()
        file.get_slice("b")[:100].add_(1)
        for tensor in file.get_tensors().values():
            tensor.mul_(2)
    assert model.read_bytes() == before
    assert_same(load_file(model), TENSORS)


def test_a_file_can_be_replaced_while_it_is_mapped(model):
    with safe_open(model, "pt") as file:
        mapped = file.get_tensors()
        save_file({"w": torch.zeros(10_000), "b": torch.zeros(5000)}, model)
        assert_same(mapped, TENSORS)
        assert_same(file.get_tensors(), TENSORS)


def test_each_tensor_has_a_storage_of_its_own(tmp_path):
    save_file(one_of_each(3, 4), tmp_path / "model")
    for backend in ("mmap", "pread"):
        for tensor in safe_open(tmp_path / "model", "pt", backend=backend).get_tensors().values():
            assert (tensor.storage_offset(), tensor.untyped_storage().nbytes()) == (0, tensor.nbytes)


def test_arrays_are_views_of_the_mapping_as_well(model):
    with safe_open(model, "np") as file:
        array = file.get_tensor("w")
    assert is_mapped(model)
    array[:] = 0
    assert load_file(model)["w"][-1] == 9_999


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_64_threads_use_one_file(tmp_path, backend):
    tensors = {f"layer.{i}": sample(torch.float32, 100 + i, 7, seed=i) for i in range(64)}
    save_file(tensors, tmp_path / "model")
    with safe_open(tmp_path / "model", "pt", backend=backend) as file:

        def read(thread):
            name = f"layer.{thread % 64}"
            whole, part = file.get_tensor(name), file.get_slice(name)[thread % 50 :, 1:3]
            assert file.get_slice(name).get_shape() == list(whole.shape)
            return torch.equal(whole.view(torch.int32), tensors[name].view(torch.int32)) and torch.equal(
                part.contiguous().view(torch.int32), tensors[name][thread % 50 :, 1:3].contiguous().view(torch.int32)
            )

        with ThreadPoolExecutor(64) as pool:
            assert all(pool.map(read, range(256)))


def test_no_file_stays_open(model):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with safe_open(model, "pt", backend="pread") as file:
        file.get_tensor("w")
    assert load_file(model).keys() == TENSORS.keys()
    with pytest.raises(SafetensorError):
        file.keys()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_names_that_were_dropped_on_saving_are_not_restored(tmp_path):
    """As in safetensors, whose load_model() looks after them; veturboio.load() restores them."""
    shared = torch.ones(3)
    veturboio.save_file({"a": shared, "b": shared}, tmp_path / "model", force_save_shared_tensor=True)
    assert veturboio.load(tmp_path / "model").keys() == {"a", "b"}
    assert load_file(tmp_path / "model").keys() == {"a"}
    assert safe_open(tmp_path / "model", "pt").keys() == ["a"]


def test_a_directory_and_an_index_open_as_one_model(tmp_path):
    veturboio.save_sharded(TENSORS, tmp_path / "model", max_shard_size=50_000)
    assert len(list((tmp_path / "model").glob("*.safetensors"))) == 2
    for name in (tmp_path / "model", tmp_path / "model" / "model.safetensors.index.json"):
        assert_same(load_file(name), TENSORS)
        with safe_open(name, "pt") as file:
            assert_same({"w": file.get_tensor("w"), "b": file.get_slice("b")[:]}, TENSORS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^The directory has no .*: .*/empty$"):
        load_file(tmp_path / "empty")


def test_a_uri_is_a_filename(model):
    assert_same(load_file(f"file://{model}"), TENSORS)
    assert safe_open(f"file://{model}", "pt").keys() == ["b", "w"]


def test_importing_veturboio_does_not_import_safetensors():
    program = "import sys, veturboio; print(any(name.startswith('safetensors') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"


def test_it_works_without_safetensors():
    program = (
        "import sys; sys.modules['safetensors'] = None\n"
        "import torch, veturboio.safetensors as ours, veturboio.safetensors.torch as functions\n"
        "print(ours.SafetensorError.__bases__, functions.load(functions.save({'a': torch.ones(1)})))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert result.stdout == "(<class 'Exception'>,) {'a': tensor([1.])}\n"
