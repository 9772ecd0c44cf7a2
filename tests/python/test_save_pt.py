"""save_pt() writes what torch.save writes, byte for byte, from the tensors' own memory."""

from __future__ import annotations

import gc
import io
import resource
import secrets
import signal
import weakref
import zipfile
import zlib
from collections import OrderedDict

import pytest
import torch
from fresh_process import run_python
from sample_tensors import assert_same, bits, one_of_each, sample

import veturboio
from veturboio import _save

KEYS = {size: bytes(range(size // 8)) for size in (128, 256)}
CHUNK = 8 << 20


class Tagged(torch.Tensor):
    """A subclass, whose pickle names it."""


def shared():
    base = torch.arange(100.0)
    return {"base": base, "part": base[2:8].view(2, 3).t(), "same": base, "other": torch.ones(3)}


def views():
    matrix = torch.arange(600.0).view(20, 30)
    complex_numbers = torch.ones(6, dtype=torch.complex64) * 2j
    return [
        matrix.t(),
        matrix[::3, 5:11],
        torch.ones(1).expand(4, 5),
        complex_numbers.conj(),
        torch.ones(4, dtype=torch.complex64).conj().imag,
    ]


def checkpoint():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "note": "é", "none": None}


OBJECTS = {
    "dtypes": lambda: one_of_each(3, 4),
    "shared": shared,
    "views": views,
    "parameters": lambda: OrderedDict(p=torch.nn.Parameter(torch.ones(3, 3)), f=torch.nn.Parameter(torch.ones(2), False)),
    "checkpoint": checkpoint,
    "module": lambda: torch.nn.Linear(3, 4),
    "one tensor": lambda: torch.arange(5),
    "empty": lambda: {"a": torch.empty(0), "b": torch.ones(2), "c": torch.empty(3, 0), "d": torch.empty(0)},
    "only empty": lambda: torch.empty(0),
    "no tensor": lambda: [1, "two", {}],
    "storages": lambda: [torch.ones(3).untyped_storage(), torch.arange(4)._typed_storage()],
    "chunks": lambda: [sample(torch.uint8, n, seed=n) for n in (2 * CHUNK, 3, CHUNK - 1, 0, 1, 5 * CHUNK + 77, 64)],
    "many": lambda: {str(i): torch.full((i % 7,), i) for i in range(3000)},
    "sparse": lambda: torch.eye(5).to_sparse(),
    "subclass": lambda: {"t": torch.ones(3).as_subclass(Tagged), "w": torch.zeros(2)},
    "quantized": lambda: [torch.quantize_per_tensor(torch.arange(4.0), 0.1, 0, torch.qint8), torch.ones(3)],
    "meta": lambda: [torch.ones(3, device="meta"), torch.ones(3)],
}
STREAMED = ["quantized", "meta"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def written_by_torch(value):
    """Through a file object, so that the archive has the same name inside."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.fixture
def streamed(monkeypatch):
    """Notes the objects that PyTorch has written all of."""
    values = []
    stream = _save._stream_pt

    def noted(value, *arguments):
        values.append(value)
        stream(value, *arguments)

    monkeypatch.setattr(_save, "_stream_pt", noted)
    return values


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:.*quantize")
@pytest.mark.parametrize("name", OBJECTS)
def test_the_file_has_the_bytes_of_torch_save(tmp_path, streamed, name):
    value = OBJECTS[name]()
    veturboio.save_pt(value, tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == written_by_torch(value)
    with zipfile.ZipFile(tmp_path / "ours") as archive:
        assert archive.testzip() is None
    assert bool(streamed) == (name in STREAMED)
    assert names_in(tmp_path) == ["ours"]


@pytest.mark.parametrize("name", ["dtypes", "shared", "views", "checkpoint", "chunks"])
@pytest.mark.parametrize("options", [{"weights_only": True}, {"weights_only": False}, {"mmap": True}], ids=str)
def test_torch_load_reads_it(tmp_path, name, options):
    value = OBJECTS[name]()
    veturboio.save_pt(value, tmp_path / "ours")
    torch.save(value, tmp_path / "theirs")
    found, expected = (torch.load(tmp_path / file, **options) for file in ("ours", "theirs"))
    if name == "checkpoint":
        found, expected = found["model"], expected["model"]
    if isinstance(expected, list):
        found, expected = dict(enumerate(found)), dict(enumerate(expected))
    assert_same(found, expected)


@pytest.mark.parametrize("size", KEYS)
@pytest.mark.parametrize("name", ["dtypes", "shared", "chunks", "no tensor"])
def test_it_is_encrypted_as_a_whole(tmp_path, name, size):
    value = OBJECTS[name]()
    iv = secrets.token_bytes(16)
    veturboio.save_pt(value, tmp_path / "secret", key=KEYS[size], iv=iv)
    veturboio.save_pt(value, tmp_path / "plain")
    found = bytearray((tmp_path / "secret").read_bytes())
    plain = (tmp_path / "plain").read_bytes()
    assert found != plain
    torch.ops.veturbo.aes_ctr_decrypt_(
        torch.frombuffer(found, dtype=torch.uint8),
        torch.tensor(list(KEYS[size]), dtype=torch.uint8),
        torch.tensor(list(iv), dtype=torch.uint8),
    )
    assert found == plain


def test_without_checksums_it_has_those_that_torch_save_writes_then(tmp_path, streamed):
    torch.serialization.set_crc32_options(False)
    try:
        veturboio.save_pt(shared(), tmp_path / "ours")
        assert (tmp_path / "ours").read_bytes() == written_by_torch(shared())
    finally:
        torch.serialization.set_crc32_options(True)
    assert not streamed


def test_a_pytorch_that_makes_its_ids_in_another_way_writes_the_file_itself(tmp_path, streamed, monkeypatch):
    monkeypatch.setattr("veturboio._torch_outline._Directory._combined", lambda self: b"0" * 20)
    veturboio.save_pt(shared(), tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == written_by_torch(shared())
    assert len(streamed) == 1


def test_tensors_are_not_kept_after_the_save(tmp_path):
    tensor = torch.ones(3)
    storage = weakref.ref(tensor.untyped_storage())
    alive = weakref.ref(tensor)
    gc.disable()
    try:
        veturboio.save_pt({"w": tensor}, tmp_path / "ours")
        del tensor
        assert alive() is None
        assert storage() is None
    finally:
        gc.enable()


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    veturboio.save_pt({"w": torch.ones(3)}, tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            veturboio.save_pt(OBJECTS["chunks"](), tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.filename == str(tmp_path / "model")
    assert names_in(tmp_path) == ["model"]
    assert (tmp_path / "model").read_bytes() == before


def test_it_takes_little_more_memory_than_the_model(tmp_path):
    done = run_python(
        """
import sys, torch, veturboio
def bytes_of(field):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(field)]
    return int(line.split()[1]) * 1024
veturboio.save_pt({"small": torch.ones(3, 2)}, sys.argv[1])
before = bytes_of("VmRSS")
tensors = {str(i): torch.full((1024, 8192), i, dtype=torch.float16) for i in range(40)}
veturboio.save_pt(tensors, sys.argv[1])
print(bytes_of("VmHWM") - before, sum(tensor.nbytes for tensor in tensors.values()))
""",
        tmp_path / "model",
    )
    taken, model = map(int, done.stdout.split())
    assert model > 600 << 20
    assert model * 0.95 < taken < model * 1.05 + (16 << 20)


# The operators


def start_write(buffers, offsets, path, **options):
    return torch.ops.veturbo.start_write(buffers, offsets, str(path), **options)


def numbers(size, seed=0):
    return sample(torch.uint8, size, seed=seed)


def test_buffers_are_written_where_their_offsets_say(tmp_path):
    parts = [numbers(size, seed) for seed, size in enumerate([5, 0, 2 * CHUNK + 3, 7])]
    start_write([parts[2], parts[0], parts[1], parts[3]], [5, 0, 99, 2 * CHUNK + 8], tmp_path / "file").result()
    assert (tmp_path / "file").read_bytes() == b"".join(bits(part) for part in parts)
    start_write([], [], tmp_path / "file").result()
    assert (tmp_path / "file").read_bytes() == b""


def test_late_buffers_are_not_looked_at_before_they_are_ready(tmp_path):
    parts = [torch.zeros(10, dtype=torch.uint8), numbers(3 * CHUNK), torch.zeros(20, dtype=torch.uint8)]
    job = start_write(parts, [0, 10, 10 + 3 * CHUNK], tmp_path / "file", late=[0, 2])
    assert not job.wait(0.2)
    parts[0].fill_(1)
    parts[2].fill_(2)
    job.ready()
    job.result()
    assert (tmp_path / "file").read_bytes() == b"\1" * 10 + bits(parts[1]) + b"\2" * 20


@pytest.mark.parametrize("end", ["cancel", "drop"])
def test_a_job_that_is_given_up_before_it_is_ready_ends_and_leaves_nothing(tmp_path, end):
    job = start_write([torch.ones(3, dtype=torch.uint8)], [0], tmp_path / "file", late=[0])
    if end == "cancel":
        job.cancel()
        with pytest.raises(RuntimeError, match="cancelled"):
            job.result()
    del job
    assert names_in(tmp_path) == []


def test_buffers_that_do_not_fill_the_file_are_refused(tmp_path):
    three = torch.ones(3, dtype=torch.uint8)
    for buffers, offsets, options, message in [
        ([three], [0, 3], {}, "1 buffers need as many offsets, not 2"),
        ([three], [1], {}, "byte 0 of the file is in none of the buffers"),
        ([three, three], [0, 4], {}, "byte 3 of the file is in none of the buffers"),
        ([three, three], [0, 2], {}, "byte 2 of the file is in two of the buffers"),
        ([three], [-1], {}, "none of the buffers"),
        ([three.float()], [0], {}, "a buffer must be a contiguous tensor of dtype uint8"),
        ([three], [0], {"late": [1]}, "there is no buffer 1"),
        ([three], [0], {"num_threads": -1}, "num_threads is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            start_write(buffers, offsets, tmp_path / "file", **options)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_checksums_are_those_of_zip(num_threads):
    buffers = [numbers(size, size) for size in (0, 1, 63, 64, 1000, CHUNK, 3 * CHUNK + 5, 12)]
    job = torch.ops.veturbo.start_checksum(buffers, num_threads=num_threads)
    assert job.result() == [zlib.crc32(bits(buffer)) for buffer in buffers]
    assert torch.ops.veturbo.start_checksum([]).result() == []
