"""Files on a file system that answers late, as those over a network do (tests/fakes/slow_fs)."""

from __future__ import annotations

import errno
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from fresh_process import run_python
from sample_tensors import assert_same

import veturboio
from fakes.slow_mount import NoMountError, SlowFs
from veturboio.safetensors import safe_open

NUM_BYTES = 24 << 20
KEY, IV = b"k" * 32, b"i" * 16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    generator = torch.Generator().manual_seed(1)
    tensors = {name: torch.randint(256, (NUM_BYTES // 2,), dtype=torch.uint8, generator=generator) for name in "ab"}
    veturboio.save_file(tensors, folder / "model")
    veturboio.save_file(tensors, folder / "encrypted", use_cipher=True, key=KEY, iv=IV)
    return folder


@pytest.fixture(scope="module")
def expected(source: Path) -> dict[str, torch.Tensor]:
    return veturboio.load(source / "model")


@pytest.fixture
def mount(source: Path) -> Iterator[Callable[..., SlowFs]]:
    with ExitStack() as mounts:

        def mounted(**settings: float) -> SlowFs:
            try:
                return mounts.enter_context(SlowFs(source, **{"delay_ms": 20, "mb_per_s": 0, **settings}))
            except NoMountError as error:
                pytest.skip(str(error))

        yield mounted


def bytes_fetched(far: SlowFs) -> int:
    return sum(read.size for read in far.reads())


def readers(far: SlowFs) -> int:
    """Handles through which chunks were read."""
    return len({read.handle for read in far.reads() if read.size > 128 << 10})


def mappings_of(path: Path) -> int:
    return sum(line.endswith(str(path)) for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_cold_file_is_read_by_many_readers_and_each_byte_once(mount, expected):
    far = mount()
    assert_same(veturboio.load(far / "model"), expected)
    assert far.most_at_once() > 16
    assert 12 < readers(far) <= 32
    assert bytes_fetched(far) < 1.1 * NUM_BYTES
    assert far.handles("direct") == []


def test_a_cold_file_whose_header_is_cached_is_found_to_be_far_as_well(mount, expected):
    far = mount()
    assert torch.ops.veturbo.list_tensors(str(far / "model"))[0] == ["a", "b"]
    assert_same(veturboio.load(far / "model"), expected)
    assert far.most_at_once() > 16


def test_as_many_threads_as_are_asked_for_are_enough(mount, expected):
    far = mount()
    assert_same(veturboio.load(far / "model", num_thread=2), expected)
    assert readers(far) <= 2


def test_a_cached_file_asks_for_nothing_and_has_no_more_handles(mount, expected):
    far = mount()
    veturboio.load(far / "model")
    far.forget_requests()
    assert_same(veturboio.load(far / "model"), expected)
    assert far.reads() == []
    assert len(far.handles("cached")) == 1


def test_a_file_that_the_page_cache_does_not_keep_is_read_past_it(mount, expected):
    far = mount(keep_cache=0)
    assert_same(veturboio.load(far / "model"), expected)
    assert len(far.handles("direct")) > 12
    assert far.most_at_once() > 8
    assert bytes_fetched(far) < 1.1 * NUM_BYTES


def test_direct_io_on_request_has_a_handle_for_each_reader_as_well(mount, expected):
    far = mount()
    assert_same(veturboio.load(far / "model", use_direct_io=True), expected)
    assert len(far.handles("direct")) > 4


def test_an_encrypted_file_is_read_by_many_readers(mount, expected):
    far = mount()
    assert_same(veturboio.load(far / "encrypted", use_cipher=True, key=KEY, iv=IV), expected)
    assert far.most_at_once() > 16


def test_a_file_for_shared_memory_is_read_by_many_readers(mount, source):
    far = mount()
    memory = veturboio.load_to_shmem(far / "model")
    try:
        assert bytes(memory.buf)[: memory.size] == (source / "model").read_bytes()
    finally:
        memory.close()
        memory.unlink()
    assert far.most_at_once() > 16


def test_a_cold_file_is_not_mapped_but_read_by_many_readers(mount, expected):
    far = mount()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the one below, unless this process has said it before
        tensors = veturboio.load(far / "model", mmap=True)
    assert mappings_of(far / "model") == 0
    assert far.most_at_once() > 16
    assert_same(tensors, expected)


MAP_TWICE = """
import sys, warnings, veturboio
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for path in sys.argv[1:]:
        veturboio.load(path, mmap=True)
for warning in caught:
    print(warning.message)
"""


def test_that_it_is_not_mapped_is_said_once(mount):
    far, other = mount(), mount()
    said = run_python(MAP_TWICE, far / "model", other / "model").stdout.splitlines()
    assert said == [
        f"{far / 'model'}: read instead of mapped, as all that is on FUSE and not in the page cache: a mapping would wait for it "
        "at every few pages (this is said once)"
    ]


def test_a_cached_file_is_mapped(mount, expected):
    far = mount()
    veturboio.load(far / "model")
    tensors = veturboio.load(far / "model", mmap=True)
    assert mappings_of(far / "model") == 1
    assert_same(tensors, expected)
    del tensors


def test_an_encrypted_file_is_refused_for_a_mapping_as_anywhere(mount):
    far = mount()
    with pytest.raises(ValueError, match="an encrypted file cannot be mapped into memory"):
        veturboio.load(far / "encrypted", use_cipher=True, key=KEY, iv=IV, mmap=True)


def test_a_read_that_fails_names_file_and_offset(mount):
    fails_from = 10_000_000
    far = mount(fail_from=fails_from)
    with pytest.raises(OSError, match=r"read: Input/output error \(at byte \d+\)") as caught:
        veturboio.load(far / "model")
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == str(far / "model")
    offset = re.search(r"at byte (\d+)", str(caught.value))
    assert offset is not None
    assert fails_from - (1 << 20) <= int(offset[1])


def test_a_server_that_goes_away_is_an_error_and_no_hang(mount):
    far = mount(delay_ms=400)
    timer = threading.Timer(1, far.die)
    timer.start()
    with pytest.raises(OSError, match="read: ") as caught:
        veturboio.load(far / "model", num_thread=1)
    timer.join()
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        veturboio.load(far / "model")


def test_a_load_can_be_cancelled(mount):
    far = mount(delay_ms=100)
    job = torch.ops.veturbo.start_load(str(far / "model"))
    job.cancel()
    assert job.wait(10.0)
    with pytest.raises(RuntimeError, match="cancelled"):
        job.result()


def test_the_drop_in_for_safetensors_maps_no_cold_file(mount, expected):
    far = mount()
    with safe_open(far / "model", "pt") as file:
        part = file.get_slice("a")[1000:2000]
        assert bytes_fetched(far) < NUM_BYTES // 10
        whole = file.get_tensor("b")
        assert mappings_of(far / "model") == 0
    assert_same({"part": part, "b": whole}, {"part": expected["a"][1000:2000], "b": expected["b"]})
    assert bytes_fetched(far) < 0.7 * NUM_BYTES
