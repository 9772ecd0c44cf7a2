"""The interface: names, order and defaults of the arguments, and what each takes."""

from __future__ import annotations

import inspect
import os
from pathlib import Path, PurePosixPath

import pytest
import torch

import veturboio

# Programs written for an existing library pass these by name and by position.
SIGNATURES = {
    "load": [
        "file",
        ("map_location", "cpu"),
        ("enable_fast_mode", True),
        ("num_thread", None),
        ("helper", None),
        ("use_pinmem", False),
        ("use_direct_io", None),
        ("use_cipher", None),
        ("state_dict", None),
    ],
    "save_file": [
        "state_dict",
        "file",
        ("force_contiguous", True),
        ("force_save_shared_tensor", False),
        ("force_clone_shared_tensor", False),
        ("metadata", None),
        ("use_cipher", None),
        ("helper", None),
        ("enable_fast_mode", True),
    ],
    "save_model": ["model", "file", ("use_cipher", None)],
    "save_pt": ["state_dict", "file", ("use_cipher", None)],
    "load_to_shmem": ["file", ("num_thread", None), ("helper", None), ("use_direct_io", None), ("use_cipher", None)],
    "init_io_helper": [],
}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    veturboio.save_file({"w": torch.arange(3.0)}, path)
    return path


def loads(file, **options):
    return veturboio.load(file, **options)["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_order_and_defaults_of_the_arguments_are_kept(name):
    parameters = inspect.signature(getattr(veturboio, name)).parameters.values()
    by_position = [
        p.name if p.default is p.empty else (p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert by_position == SIGNATURES[name]
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)


def test_what_load_has_besides_is_given_by_name():
    parameters = inspect.signature(veturboio.load).parameters.values()
    by_name = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert by_name == {
        "mmap": False,
        "names": None,
        "max_host_bytes": None,
        "progress": False,
        "timeout": None,
        "weights_only": True,
        "key": None,
        "iv": None,
    }


@pytest.mark.parametrize("convert", [str, os.fsencode, Path, PurePosixPath, lambda path: f"file://{path}"])
def test_a_path_may_be_text_bytes_pathlike_or_a_uri(tmp_path, convert):
    path = convert(tmp_path / "größe 权重.safetensors")
    veturboio.save_file({"w": torch.arange(3.0)}, path)
    assert loads(path)
    assert loads(path, mmap=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["größe 权重.safetensors"]
    veturboio.save_pt({"w": torch.arange(3.0)}, path)
    assert loads(path)
    memory = veturboio.load_to_shmem(path)
    memory.close()
    memory.unlink()


def test_a_path_may_be_any_bytes(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.safetensors"
    veturboio.save_file({"w": torch.arange(3.0)}, path)
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe.safetensors"]  # noqa: PTH208  pathlib takes no bytes
    assert loads(path)
    assert loads(os.fsdecode(path))
    assert loads(path, state_dict={"w": torch.zeros(3)})
    veturboio.save_pt({"w": torch.arange(3.0)}, path)
    assert loads(path)


def test_a_relative_path_is_relative_to_the_working_directory(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert loads("model.safetensors")
    veturboio.save_file({"w": torch.arange(3.0)}, "new.safetensors")
    assert loads("new.safetensors")


@pytest.mark.parametrize("file", [None, 3, 1.5, ["model"], object()], ids=lambda value: type(value).__name__)
def test_a_path_of_another_type_is_a_type_error(file):
    for call in (
        veturboio.load,
        veturboio.load_to_shmem,
        lambda file: veturboio.save_file({}, file),
        lambda file: veturboio.save_pt({}, file),
    ):
        with pytest.raises(TypeError, match=r"expected str, bytes or os\.PathLike object"):
            call(file)


def test_a_nul_in_a_path_is_refused():
    for call in veturboio.load, veturboio.load_to_shmem, lambda file: veturboio.save_file({}, file):
        with pytest.raises(ValueError, match="a path cannot contain a NUL byte"):
            call("model\0.safetensors")


def test_a_uri_of_an_unknown_scheme_is_refused_with_those_that_there_are():
    for call in veturboio.load, lambda file: veturboio.save_file({}, file):
        with pytest.raises(ValueError, match='no storage back end for "gopher://": give a path or one of file://'):
            call("gopher://host/model.safetensors")


@pytest.mark.parametrize("map_location", ["cpu", torch.device("cpu"), "cpu:0"], ids=repr)
def test_map_location_may_be_text_or_a_device(model, map_location):
    assert veturboio.load(model, map_location)["w"].device.type == "cpu"
    assert loads(model, map_location=map_location)


def test_loading_to_meta_gives_shapes_without_data(model):
    found = veturboio.load(model, "meta")["w"]
    assert (found.is_meta, found.shape, found.dtype) == (True, (3,), torch.float32)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator, and this is what happens without one")
def test_an_index_is_one_of_an_accelerator(model):
    # In the words of PyTorch without accelerators, of one for CUDA without a driver, and of one with fewer devices than that.
    with pytest.raises(RuntimeError, match=r"accelerator|NVIDIA driver|invalid device"):
        veturboio.load(model, 99)


@pytest.mark.parametrize(
    "map_location",
    [None, True, 1.0, {"cuda:0": "cpu"}, lambda storage, location: storage],
    ids=lambda value: type(value).__name__,
)
def test_a_map_location_of_another_type_is_a_type_error(model, map_location):
    with pytest.raises(TypeError, match="map_location must be a device"):
        veturboio.load(model, map_location)


def test_a_map_location_that_is_no_device_is_refused_in_pytorchs_words(model):
    with pytest.raises(RuntimeError, match="device type at start of device string: gpu"):
        veturboio.load(model, "gpu")


@pytest.mark.parametrize("num_thread", [1, 2, 7, 32767])
def test_any_sensible_number_of_threads_works(model, num_thread):
    assert loads(model, num_thread=num_thread)


@pytest.mark.parametrize("num_thread", [0, -1, 32768, 2**70])
def test_a_senseless_number_of_threads_is_refused(model, num_thread):
    for call in veturboio.load, veturboio.load_to_shmem:
        with pytest.raises(ValueError, match=f"num_thread is {num_thread}: give 1 to 32767, or None for as many as pay"):
            call(model, num_thread=num_thread)


@pytest.mark.parametrize("num_thread", [-1, 32768])
def test_the_operators_refuse_a_senseless_number_of_threads(model, num_thread):
    ops = torch.ops.veturbo
    with pytest.raises(ValueError, match=f"num_threads is {num_thread}: give 0 for as many as pay"):
        ops.load_file(str(model), num_threads=num_thread)
    with pytest.raises(ValueError, match=f"num_threads is {num_thread}: give 0 for as many as pay"):
        ops.save_file({"w": torch.ones(1)}, str(model), num_threads=num_thread)
    assert loads(model)


@pytest.mark.parametrize("num_thread", [True, 2.0, "4"], ids=repr)
def test_a_number_of_threads_of_another_type_is_a_type_error(model, num_thread):
    with pytest.raises(TypeError, match="num_thread must be an int or None"):
        veturboio.load(model, num_thread=num_thread)


@pytest.mark.parametrize("use_direct_io", [None, False, True])
@pytest.mark.parametrize("enable_fast_mode", [False, True])
def test_every_way_of_reading_gives_the_same(tmp_path, use_direct_io, enable_fast_mode):
    # Sizes that are no multiples of a page, from below one to several chunks.
    expected = {str(size): torch.arange(size) for size in [1, 3, 511, 70_001, 1_500_007]}
    veturboio.save_file(expected, tmp_path / "model", enable_fast_mode=enable_fast_mode)
    found = veturboio.load(tmp_path / "model", use_direct_io=use_direct_io, enable_fast_mode=enable_fast_mode)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_file_system_without_direct_io_is_read_through_the_cache(shm_path):
    veturboio.save_file({"w": torch.arange(3.0)}, shm_path / "model")
    assert loads(shm_path / "model", use_direct_io=True)


def test_a_helper_is_taken_and_holds_nothing_on_the_cpu(model, tmp_path):
    for helper in veturboio.init_io_helper(), veturboio.IOHelper(), torch.classes.veturbo.IOHelper():
        assert loads(model, helper=helper, use_pinmem=True)
        veturboio.save_file({"w": torch.arange(3.0)}, tmp_path / "new", helper=helper)
        memory = veturboio.load_to_shmem(model, helper=helper)
        memory.close()
        memory.unlink()
        assert helper.bytes() == 0
        helper.release()


def test_a_helper_of_another_type_is_a_type_error(model):
    with pytest.raises(TypeError, match=r"helper must be a veturboio\.IOHelper or None, not str"):
        veturboio.load(model, helper="pinned", use_pinmem=True)
    with pytest.raises(TypeError, match=r"helper must be a veturboio\.IOHelper or None, not str"):
        veturboio.save_file({}, model, helper="pinned")
