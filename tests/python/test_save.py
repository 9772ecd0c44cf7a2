"""Saving: the file takes its name in one step, whole or not at all, and what cannot be saved is refused by name."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors_files import header_of
from sample_tensors import assert_same

import veturboio

OLD = {"w": torch.arange(3.0)}
NEW = {"w": torch.arange(4.0)}


def save_pt(tensors, path):
    veturboio.save_pt(tensors, path)


both_formats = pytest.mark.parametrize("save", [veturboio.save_file, save_pt], ids=["save_file", "save_pt"])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def umask(mask):
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@contextmanager
def largest_file(size):
    """Makes every write beyond `size` fail as on a full disk: with an errno, and after part of it was written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@both_formats
def test_only_the_file_is_there_afterwards(tmp_path, save):
    save(NEW, tmp_path / "model")
    assert names_in(tmp_path) == ["model"]
    assert_same(veturboio.load(tmp_path / "model"), NEW)


@both_formats
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_a_new_file_has_the_mode_that_open_would_give_it(tmp_path, save, mask):
    with umask(mask):
        save(NEW, tmp_path / "model")
    assert (tmp_path / "model").stat().st_mode & 0o7777 == 0o666 & ~mask


@both_formats
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path, save, mode):
    save(OLD, tmp_path / "model")
    (tmp_path / "model").chmod(mode)
    save(NEW, tmp_path / "model")
    assert (tmp_path / "model").stat().st_mode & 0o7777 == mode
    assert_same(veturboio.load(tmp_path / "model"), NEW)


@both_formats
def test_whoever_has_the_old_file_open_keeps_it(tmp_path, save):
    save(OLD, tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    with (tmp_path / "model").open("rb") as reader:
        save(NEW, tmp_path / "model")
        assert reader.read() == before
    assert_same(veturboio.load(tmp_path / "model"), NEW)


@both_formats
def test_saving_to_a_symbolic_link_replaces_what_it_points_to(tmp_path, save):
    (tmp_path / "store").mkdir()
    (tmp_path / "links").mkdir()
    save(OLD, tmp_path / "store" / "model")
    (tmp_path / "links" / "first").symlink_to("../store/model")
    (tmp_path / "links" / "second").symlink_to(tmp_path / "links" / "first")
    save(NEW, tmp_path / "links" / "second")
    assert (tmp_path / "links" / "second").is_symlink()
    assert_same(veturboio.load(tmp_path / "store" / "model"), NEW)
    assert (names_in(tmp_path / "store"), names_in(tmp_path / "links")) == (["model"], ["first", "second"])


@both_formats
def test_saving_to_a_dangling_link_makes_what_it_points_to(tmp_path, save):
    (tmp_path / "link").symlink_to("model")
    save(NEW, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert_same(veturboio.load(tmp_path / "model"), NEW)


@both_formats
def test_a_ring_of_links_is_an_os_error(tmp_path, save):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links") as caught:
        save(NEW, tmp_path / "a")
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, str(tmp_path / "a"))


@both_formats
def test_a_save_into_a_missing_directory_says_which(tmp_path, save):
    with pytest.raises(FileNotFoundError, match=f"there is no directory {tmp_path}/missing") as caught:
        save(NEW, tmp_path / "missing" / "model")
    assert caught.value.filename == str(tmp_path / "missing" / "model")


@both_formats
def test_a_failed_save_leaves_the_old_file_and_nothing_beside_it(tmp_path, save):
    save(OLD, tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    with largest_file(1 << 20), pytest.raises(OSError, match="File too large") as caught:
        save({"w": torch.ones(1 << 20)}, tmp_path / "model")
    # While the exception is alive, as it is in an except block.
    assert names_in(tmp_path) == ["model"]
    assert (tmp_path / "model").read_bytes() == before
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "model"))


@both_formats
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_full_file_system_leaves_the_old_file_and_nothing_beside_it(tmp_path, save):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"this container does not mount: {mounted.stderr}")
    try:
        save(OLD, tmp_path / "model")
        with pytest.raises(OSError, match="No space left on device") as caught:
            save({"w": torch.ones(1 << 20)}, tmp_path / "model")
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "model"))
        assert names_in(tmp_path) == ["model"]
        assert_same(veturboio.load(tmp_path / "model"), OLD)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@both_formats
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_read_only_file_system_leaves_the_old_file(tmp_path, save):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"this container does not mount: {mounted.stderr}")
    try:
        save(OLD, tmp_path / "model")
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        for name in ("model", "new"):
            with pytest.raises(OSError, match="Read-only file system") as caught:
                save(NEW, tmp_path / name)
            assert (caught.value.errno, caught.value.filename) == (errno.EROFS, str(tmp_path / name))
        assert names_in(tmp_path) == ["model"]
        assert_same(veturboio.load(tmp_path / "model"), OLD)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@both_formats
def test_a_device_is_not_replaced_by_a_file(save):
    with pytest.raises(OSError, match="not a regular file: saving would replace it"):
        save(NEW, "/dev/full")
    assert Path("/dev/full").is_char_device()


def test_a_cancelled_save_leaves_the_old_file_and_nothing_beside_it(shm_path):
    veturboio.save_file(OLD, shm_path / "model")
    job = torch.ops.veturbo.start_save({"w": torch.zeros(256 << 20, dtype=torch.uint8)}, str(shm_path / "model"))
    job.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        job.result()
    assert names_in(shm_path) == ["model"]
    assert_same(veturboio.load(shm_path / "model"), OLD)


def test_something_that_cannot_be_pickled_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    veturboio.save_pt(OLD, tmp_path / "model")
    with pytest.raises(TypeError, match="cannot pickle") as caught:
        veturboio.save_pt({"w": torch.ones(1000), "lock": threading.Lock()}, tmp_path / "model")
    assert names_in(tmp_path) == ["model"]
    assert_same(veturboio.load(tmp_path / "model"), OLD)
    del caught


def test_a_file_writer_that_has_ended_writes_no_more(tmp_path):
    for end in "commit", "discard":
        writer = torch.classes.veturbo.FileWriter(str(tmp_path / end), None)
        writer.write(torch.ones(1))
        getattr(writer, end)()
        with pytest.raises(ValueError, match="the file has been committed or discarded"):
            writer.write(torch.ones(1))
        with pytest.raises(ValueError, match="the file has been committed or discarded"):
            writer.commit()
    assert names_in(tmp_path) == ["commit"]


class Tagged(torch.Tensor):
    """A subclass that is a tensor like any other."""


def wrapper_subclass():
    # The one that PyTorch itself brings along.
    from torch.testing._internal.two_tensor import TwoTensor

    return TwoTensor(torch.ones(2), torch.ones(2))


REFUSED = {
    "sparse coo": (lambda: torch.eye(2).to_sparse(), "has layout Sparse, the format has only dense tensors: save its to_dense"),
    "sparse csr": (lambda: torch.eye(2).to_sparse_csr(), "has layout SparseCsr, the format has only dense tensors"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "is nested, which the format cannot express"),
    "quantized": (
        lambda: torch._empty_affine_quantized([2], scale=0.1, zero_point=0, dtype=torch.quint8),
        "is quantized, which the format cannot express",
    ),
    "meta": (lambda: torch.ones(2, device="meta"), "is on the meta device and has no data"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "has dtype ComplexDouble, which the format does not have"),
    "complex32": (lambda: torch.ones(2, dtype=torch.complex32), "has dtype ComplexHalf, which the format does not have"),
    "wrapper subclass": (wrapper_subclass, "is a TwoTensor, which has no memory of its own"),
    "scalar of packed elements": (
        lambda: torch.zeros(1, dtype=torch.uint8).view(torch.float4_e2m1fn_x2).reshape(()),
        "a scalar of float4_e2m1fn_x2 has no shape in the format",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(("make", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_a_tensor_that_the_format_cannot_hold_is_refused_by_name(tmp_path, make, text):
    veturboio.save_file(OLD, tmp_path / "model")
    with pytest.raises(ValueError, match=f'tensor "layer.bad"[: ].*{text}'):
        veturboio.save_file({"fine": torch.ones(2), "layer.bad": make()}, tmp_path / "model")
    assert names_in(tmp_path) == ["model"]
    assert_same(veturboio.load(tmp_path / "model"), OLD)


@pytest.mark.parametrize(
    ("state_dict", "error", "text"),
    [
        ({"w": [1.0, 2.0]}, TypeError, r'state_dict\["w"\] is a list, not a tensor'),
        ({"w": None}, TypeError, r'state_dict\["w"\] is a NoneType, not a tensor'),
        ({7: torch.ones(1)}, TypeError, "the name 7 of a tensor must be a str, not a int"),
        ([("w", torch.ones(1))], TypeError, "state_dict must be a dict of names and tensors, not a list"),
        ({"\ud800": torch.ones(1)}, ValueError, r"the name of a tensor '\\ud800' cannot be written as UTF-8"),
        ({"__metadata__": torch.ones(1)}, ValueError, 'tensor "__metadata__": the format keeps this name for metadata'),
    ],
    ids=["list", "None", "int name", "no dict", "half a surrogate pair", "reserved name"],
)
def test_a_state_dict_of_something_else_is_refused(tmp_path, state_dict, error, text):
    with pytest.raises(error, match=text):
        veturboio.save_file(state_dict, tmp_path / "model")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("metadata", "error", "text"),
    [
        ({"steps": 3}, TypeError, "metadata must be a dict of texts, but 'steps': 3 is not"),
        ({3: "steps"}, TypeError, "metadata must be a dict of texts, but 3: 'steps' is not"),
        ({"a": None}, TypeError, "metadata must be a dict of texts, but 'a': None is not"),
        ("format=pt", TypeError, "metadata must be a dict of texts, not a str"),
        ({"\udc80": "a"}, ValueError, "the metadata key .* cannot be written as UTF-8"),
        ({"a": "\udc80"}, ValueError, "the metadata value of 'a' .* cannot be written as UTF-8"),
    ],
    ids=["int value", "int key", "None", "no dict", "bad key", "bad value"],
)
def test_metadata_of_something_else_are_refused(tmp_path, metadata, error, text):
    with pytest.raises(error, match=text):
        veturboio.save_file(NEW, tmp_path / "model", metadata=metadata)
    assert names_in(tmp_path) == []


def test_parameters_and_simple_subclasses_save_their_data(tmp_path):
    data = torch.arange(4.0)
    tensors = {
        "parameter": torch.nn.Parameter(data.clone()),
        "buffer": torch.nn.Buffer(data.clone()),
        "tagged": data.clone().as_subclass(Tagged),
        "needs grad": data.clone().requires_grad_() * 1,
    }
    veturboio.save_file(tensors, tmp_path / "model")
    loaded = veturboio.load(tmp_path / "model")
    assert_same(loaded, dict.fromkeys(tensors, data))
    assert all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in loaded.values())


def test_non_contiguous_tensors_are_saved_as_contiguous_ones_or_refused(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    strided = {
        "transposed": whole.t().clone(memory_format=torch.preserve_format),
        "sliced": whole.clone()[:, ::2],
        "expanded": torch.ones(1, 3).expand(2, 3),
        "channels_last": torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    assert not any(tensor.is_contiguous() for tensor in strided.values())
    veturboio.save_file(strided, tmp_path / "model")
    assert_same(veturboio.load(tmp_path / "model"), strided)
    with pytest.raises(ValueError, match=r"not contiguous: transposed, sliced, expanded, channels_last\. Save their contiguous"):
        veturboio.save_file({"fine": whole, **strided}, tmp_path / "refused", force_contiguous=False)
    assert names_in(tmp_path) == ["model"]
    veturboio.save_file({"fine": whole}, tmp_path / "refused", force_contiguous=False)


def test_the_callers_dict_is_not_changed(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    state_dict = {"a": shared, "b": shared, "t": torch.ones(2, 3).t(), "p": torch.nn.Parameter(torch.ones(1))}
    before = {name: (id(tensor), tensor.stride(), tensor._version) for name, tensor in state_dict.items()}
    metadata = {"format": "pt"}
    for options in {"force_save_shared_tensor": True}, {"force_clone_shared_tensor": True}:
        veturboio.save_file(state_dict, tmp_path / "model", metadata=metadata, **options)
        assert {name: (id(tensor), tensor.stride(), tensor._version) for name, tensor in state_dict.items()} == before
        assert metadata == {"format": "pt"}


def test_any_mapping_can_be_saved(tmp_path):
    from types import MappingProxyType

    veturboio.save_file(MappingProxyType(NEW), tmp_path / "model", metadata=MappingProxyType({"format": "pt"}))
    assert_same(veturboio.load(tmp_path / "model"), NEW)
    assert header_of(tmp_path / "model")["__metadata__"] == {"format": "pt"}


def test_a_file_can_be_saved_over_while_its_tensors_are_mapped(tmp_path):
    old = {"w": torch.arange(100_000), "v": torch.ones(100_000)}
    veturboio.save_file(old, tmp_path / "model")
    mapped = veturboio.load(tmp_path / "model", mmap=True)
    veturboio.save_file({"w": mapped["w"] + 1, "v": mapped["v"]}, tmp_path / "model")
    assert_same(mapped, old)
    assert_same(veturboio.load(tmp_path / "model"), {"w": old["w"] + 1, "v": old["v"]})


def test_a_model_is_saved_under_inference_mode_and_with_one_thread(tmp_path):
    with torch.inference_mode():
        tensors = {"w": torch.arange(3_000_000)}
        veturboio.save_file(tensors, tmp_path / "one", enable_fast_mode=False)
        veturboio.save_file(tensors, tmp_path / "many")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
    assert_same(veturboio.load(tmp_path / "one"), tensors)


def test_many_small_tensors_and_one_large_one_are_saved(shm_path):
    tensors = {f"small.{i}": torch.full((i % 50,), i) for i in range(3000)}
    tensors["large"] = torch.arange(5_000_000)
    veturboio.save_file(tensors, shm_path / "model")
    assert_same(veturboio.load(shm_path / "model"), tensors)


def test_a_name_as_long_as_names_may_be_can_be_saved_to(tmp_path):
    path = tmp_path / ("n" * 255)
    veturboio.save_file(NEW, path)
    assert_same(veturboio.load(path), NEW)
    shutil.rmtree(tmp_path)
