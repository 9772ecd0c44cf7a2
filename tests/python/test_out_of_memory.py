"""A process that may have little memory (RLIMIT_AS) or no more threads: what does not fit is an error, the rest works."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fresh_process import ForkedPython, environment
from safetensors_files import entry, with_header, write_zeros

import veturboio
from veturboio import _jobs

KEYS = {"key": bytes(range(16)), "iv": bytes(16)}
LARGE = 128 << 20  # more than there is
SMALL = 100_000

BEGINNING = """
import ctypes, gc, resource, sys
from pathlib import Path
import torch, veturboio
from veturboio import cipher, convert, inspect
from veturboio.safetensors import safe_open
folder = Path(sys.argv[1])
keys = {"key": bytes(range(16)), "iv": bytes(16)}
large = torch.zeros(128 << 20, dtype=torch.uint8)
twice = torch.zeros(256 << 20, dtype=torch.uint8)
veturboio.load(folder / "small")  # what comes with a first load is there
# malloc's arenas: each thread may get 64 MiB of addresses, and whether there is room for them is chance.
M_ARENA_MAX = -8
assert ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1) == 1
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (96 << 20), resource.RLIM_INFINITY))
"""
REPORT = """
try:
    {code}
    print("well")
except Exception as error:
    print(type(error).__name__, error, sep=": ")
"""


@pytest.fixture(scope="module")
def python() -> Iterator[ForkedPython]:
    python = ForkedPython()
    yield python
    python.close()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="veturboio-test-", dir="/dev/shm"))
    write_zeros(folder / "large", num_tensors=2, bytes_each=LARGE)
    write_zeros(folder / "many", num_tensors=64, bytes_each=LARGE // 32)
    (folder / "names").write_bytes(with_header({f"a layer of many.{i:0100}": entry("U8", [0], 0, 0) for i in range(200_000)}))
    tensors = {"w": torch.zeros(LARGE, dtype=torch.uint8)}
    veturboio.save_file(tensors, folder / "encrypted", **KEYS)
    torch.save(tensors, folder / "large.pt")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    veturboio.save_file({"w": torch.zeros(SMALL)}, folder / "small")
    yield folder
    shutil.rmtree(folder)


TOO_LARGE = {
    "load": "veturboio.load(folder / 'large')",
    "load, many threads": "veturboio.load(folder / 'large', num_thread=8)",
    "load, mapped": "veturboio.load(folder / 'large', mmap=True)",
    "load, encrypted": "veturboio.load(folder / 'encrypted', **keys)",
    "load_async": "veturboio.load_async(folder / 'large').result()",
    "stream": "list(veturboio.stream(folder / 'large'))",
    "a tensor": "veturboio.open(folder / 'large').tensor('layer.0')",
    "a slice": "veturboio.open(folder / 'large').slice('layer.0')[1:]",
    "load_to_shmem": "veturboio.load_to_shmem(folder / 'large')",
    "torch file": "veturboio.load(folder / 'large.pt')",
    "old torch file": "veturboio.load(folder / 'old.pt')",
    "safe_open": "safe_open(folder / 'large', 'pt').get_tensor('layer.0')",
    # These need more than the tensors that there are.
    "load, into strided tensors": "veturboio.load(folder / 'large', state_dict={'layer.0': twice[::2], 'layer.1': twice[1::2]})",
    "save conjugated": "veturboio.save_file({'w': large.view(torch.complex64).conj()}, folder / 'out')",
}
# Where nobody has said how much was wanted.
TOO_MANY = {
    "load": "veturboio.load(folder / 'names')",
    "open": "veturboio.open(folder / 'names')",
    "stream": "list(veturboio.stream(folder / 'names'))",
    "torch file, mapped": "veturboio.load(folder / 'large.pt', mmap=True)",
}
COMMANDS = {
    "convert": "convert.main(['-i', str(folder / 'large.pt'), '-o', str(folder / 'out')])",
    "convert, old file": "convert.main(['-i', str(folder / 'old.pt'), '-o', str(folder / 'out')])",
    "inspect": "inspect.main([str(folder / 'names')])",
}
FITS = {
    "save_file": "veturboio.save_file({'w': large}, folder / 'out')",
    "save_file, encrypted": "veturboio.save_file({'w': large}, folder / 'out', **keys)",
    "save_file, transposed": "veturboio.save_file({'w': large.view(1 << 13, 1 << 14).T}, folder / 'out')",
    "save_pt": "veturboio.save_pt({'w': large}, folder / 'out')",
    "save_sharded": "veturboio.save_sharded({'w': large, 'v': large[:10].clone()}, folder / 'sharded', 1000)",
    "stream": "[None for _ in veturboio.stream(folder / 'many', max_host_bytes=32 << 20)]",
    "load into tensors": "veturboio.load(folder / 'large', state_dict={'layer.0': large, 'layer.1': twice[: 128 << 20]})",
    "load, what is asked for": "veturboio.load(folder / 'many', names=['layer.7'])",
}


def run(python: ForkedPython, folder: Path, code: str) -> str:
    return python.run(BEGINNING + REPORT.format(code=code), folder, env=environment()).strip()


def each(cases: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("code", cases.values(), ids=cases.keys())


@each(TOO_LARGE)
def test_what_does_not_fit_is_a_memory_error_that_tells_how_much(python, folder, code):
    before = sorted(folder.iterdir())
    said = run(python, folder, code)
    assert said.startswith("MemoryError: "), said
    wanted = re.search(r"not enough memory to map (\d+) bytes|you tried to allocate (\d+) bytes", said)
    assert wanted is not None, said
    assert int(wanted[1] or wanted[2]) >= LARGE
    assert sorted(folder.iterdir()) == before


@each(TOO_MANY)
def test_what_has_too_many_parts_is_a_memory_error(python, folder, code):
    said = run(python, folder, code)
    # Of a header it depends on what there is room for: what it says, or also what Python makes of that.
    assert said in (
        "MemoryError: not enough memory",
        f"MemoryError: {folder}/names: not enough memory for its header",
        f"MemoryError: {folder}/large.pt: mmap: Cannot allocate memory",
    )


@each(COMMANDS)
def test_a_command_says_so_and_leaves_nothing(python, folder, code):
    before = sorted(folder.iterdir())
    code = f"sys.stderr = sys.stdout; print({code})"
    said = run(python, folder, code).splitlines()
    assert re.fullmatch(r"veturboio\.\w+: .*(not enough memory|Cannot allocate memory|can't allocate memory).*", said[0]), said
    assert said[1:] == ["1", "well"]
    assert sorted(folder.iterdir()) == before


@each(FITS)
def test_what_needs_little_memory_works(python, folder, code):
    assert run(python, folder, code) == "well"
    for path in folder.glob("out"):
        path.unlink()


def test_shared_memory_that_is_full_is_an_error_and_nothing_is_left(tmp_path):
    model = tmp_path / "model"
    write_zeros(model, num_tensors=1, bytes_each=2 << 20)
    # Anybody's: the folder in which it is made is another one for this process.
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    code = """
    import os, sys, veturboio
    try:
        veturboio.load_to_shmem(sys.argv[1])
    except OSError as error:
        print(error.errno, error.filename, os.listdir("/dev/shm"), error.strerror)
    """
    script = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$0" "$@"'
    command = ["unshare", "-m", "sh", "-c", script, sys.executable, "-c", textwrap.dedent(code), model]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, check=True)
    size = model.stat().st_size
    reason = f"no room for {size} bytes of shared memory: {os.strerror(errno.ENOSPC)}"
    assert done.stdout == f"{errno.ENOSPC} {model} [] {reason}\n"


def test_an_interrupt_is_one_where_no_thread_can_wait_for_what_it_interrupts(monkeypatch):
    class Stuck:
        def cancel(self):
            pass

        def wait(self, seconds):
            return False

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(_jobs.Watch, "pause", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _jobs.wait(Stuck(), _jobs.Watch("a load"))
