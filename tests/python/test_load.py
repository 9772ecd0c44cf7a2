"""What load() and the operator load_file give."""

from __future__ import annotations

import pytest
import torch
from fresh_process import run_python
from safetensors_files import entry, with_header
from sample_tensors import DTYPES, FORMAT_NAMES, assert_same, one_of_each, sample

import veturboio

WAYS = {
    "plain": {},
    "mmap": {"mmap": True},
    "one thread": {"num_thread": 1},
    "seven threads": {"num_thread": 7},
    "direct": {"use_direct_io": True},
    "slow mode": {"enable_fast_mode": False},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS.keys())
def test_a_model_of_all_dtypes_is_loaded_bit_for_bit(tmp_path, options):
    saved = one_of_each(3, 7, 2)
    veturboio.save_file(saved, tmp_path / "model")
    assert_same(veturboio.load(tmp_path / "model", **options), saved)


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("header_bytes", [102, 4096 - 8, 70_001], ids="header of {}".format)
def test_a_model_larger_than_a_chunk_is_loaded_bit_for_bit(shm_path, options, header_bytes):
    # Tensors that begin and end inside pages and chunks, many small ones in one, a large one over several.
    sizes = [1, 5_000_011, 3, 17, 16_383, 16_384, 16_385, 0, 9_000_000, *range(40)]
    data = torch.randint(0, 256, (sum(sizes),), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    entries, begin = {}, 0
    for i, size in enumerate(sizes):
        entries[f"{i}"] = entry("U8", [size], begin, begin + size)
        begin += size
    names_only = len(with_header(entries)) - 8
    entries["__metadata__"] = {"padding": ""}
    padding = header_bytes - (len(with_header(entries)) - 8)
    entries["__metadata__"]["padding"] = "x" * max(padding, 0)
    assert names_only > 102 or header_bytes == 102
    (shm_path / "model").write_bytes(with_header(entries, data.numpy().tobytes()))
    loaded = veturboio.load(shm_path / "model", **options)
    assert_same(loaded, dict(zip(map(str, range(len(sizes))), data.split(sizes), strict=True)))


@pytest.mark.parametrize("dtype", DTYPES, ids=FORMAT_NAMES.values())
def test_tensors_of_a_header_of_any_length_are_aligned_for_their_dtype(tmp_path, dtype):
    saved = sample(dtype, 4, 6)
    shape = [4, 12] if dtype == torch.float4_e2m1fn_x2 else [4, 6]
    data = saved.view(torch.uint8).numpy().tobytes()
    for padding in range(9):
        header = {"skewed": entry(FORMAT_NAMES[dtype], shape, 0, len(data)), "__metadata__": {"p": "x" * padding}}
        (tmp_path / "model").write_bytes(with_header(header, data))
        for mmap in False, True:
            loaded = veturboio.load(tmp_path / "model", mmap=mmap)
            assert_same(loaded, {"skewed": saved})
            assert loaded["skewed"].data_ptr() % dtype.itemsize == 0


def test_an_empty_file_of_no_tensors_is_an_empty_dict(tmp_path):
    for header in "{}", "  {} ", '{"__metadata__":{"a":"b"}}':
        (tmp_path / "model").write_bytes(with_header(header))
        assert veturboio.load(tmp_path / "model") == veturboio.load(tmp_path / "model", mmap=True) == {}
        assert torch.ops.veturbo.load_file(str(tmp_path / "model")) == {}


def test_tensors_stand_in_the_order_of_the_file(tmp_path):
    saved = {"b": torch.ones(1), "a": torch.ones(1), "z": torch.ones(1, dtype=torch.int64)}
    veturboio.save_file(saved, tmp_path / "model")
    assert list(veturboio.load(tmp_path / "model")) == ["z", "a", "b"]


def test_loaded_tensors_are_ordinary_ones(tmp_path):
    veturboio.save_file({"w": torch.arange(6.0).reshape(2, 3)}, tmp_path / "model")
    for mmap in False, True:
        tensor = veturboio.load(tmp_path / "model", mmap=mmap)["w"]
        assert type(tensor) is torch.Tensor
        assert (tensor.requires_grad, tensor.is_leaf, tensor.is_inference(), tensor._version) == (False, True, False, 0)
        assert tensor.is_contiguous()
        tensor.requires_grad_()
        (tensor * 2).sum().backward()
        assert tensor.grad.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_a_model_is_loaded_under_inference_mode(tmp_path):
    saved = {"w": torch.arange(6.0), "skewed": torch.arange(3, dtype=torch.int8)}
    veturboio.save_file(saved, tmp_path / "model")
    for mmap in False, True:
        with torch.inference_mode():
            loaded = veturboio.load(tmp_path / "model", mmap=mmap)
            assert all(tensor.is_inference() for tensor in loaded.values())
            loaded["w"] += 1
        assert loaded["w"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_default_dtype_or_device_does_not_change_what_is_loaded(tmp_path):
    saved = {"w": torch.arange(6.0), "empty": torch.zeros(0, 3, dtype=torch.int16)}
    veturboio.save_file(saved, tmp_path / "model")
    with torch.device("meta"):
        loaded = veturboio.load(tmp_path / "model")
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(loaded, saved)
        assert_same(veturboio.load(tmp_path / "model"), saved)
    finally:
        torch.set_default_dtype(torch.float32)


def test_two_loads_of_a_file_are_two_copies(tmp_path):
    veturboio.save_file({"w": torch.zeros(3)}, tmp_path / "model")
    for mmap in False, True:
        first, second = (veturboio.load(tmp_path / "model", mmap=mmap)["w"] for _ in range(2))
        first.fill_(1)
        assert second.tolist() == [0, 0, 0]
        assert veturboio.load(tmp_path / "model")["w"].tolist() == [0, 0, 0]


def test_a_module_takes_what_is_loaded(tmp_path):
    source, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    veturboio.save_model(source, tmp_path / "model")
    target.load_state_dict(veturboio.load(tmp_path / "model"), assign=True)
    assert_same(target.state_dict(), source.state_dict())


def test_a_load_takes_little_more_memory_than_the_model(shm_path):
    # In a process of its own: the peak is one of its whole life. Of the 1 GiB on /dev/shm only a hole is taken.
    done = run_python(
        """
        import sys
        sys.path.insert(0, sys.argv[2])
        import veturboio
        from safetensors_files import write_zeros
        from pathlib import Path

        def bytes_of(field):  # of this program only: resource.ru_maxrss begins with the peak of the one that started it
            (line,) = [line for line in open("/proc/self/status") if line.startswith(field)]
            return int(line.split()[1]) * 1024

        path = Path(sys.argv[1])
        write_zeros(path.with_name("small"), num_tensors=3, bytes_each=1 << 20)
        veturboio.load(path.with_name("small"))
        write_zeros(path, num_tensors=41, bytes_each=(1 << 30) // 41)
        before = bytes_of("VmRSS")
        tensors = veturboio.load(path, num_thread=2)
        print(bytes_of("VmHWM") - before, sum(tensor.nbytes for tensor in tensors.values()))
        """,
        shm_path / "model",
        __file__.rpartition("/")[0],
    )
    taken, model = map(int, done.stdout.split())
    assert model > 1 << 29
    assert model * 0.95 < taken < model * 1.05 + (64 << 20)
