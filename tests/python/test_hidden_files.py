"""The files beside a target while it is being saved: who may read them, what takes their names, and what killed saves leave."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fresh_process import environment, run_python
from sample_tensors import assert_same

import veturboio
from fakes.faults import preloading

TENSORS = {f"layer.{i}": torch.full((1000,), float(i)) for i in range(3)}
SHARD_BYTES = 4000


def sharded(folder: Path, **options: object) -> None:
    veturboio.save_sharded(TENSORS, folder, SHARD_BYTES, **options)  # type: ignore[arg-type]


SAVES: dict[str, Callable[..., None]] = {
    "save_file": lambda folder, **options: veturboio.save_file(TENSORS, folder / "model", **options),
    "save_pt": lambda folder: veturboio.save_pt(TENSORS, folder / "model"),
    "save_sharded": sharded,
}


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@contextmanager
def with_umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("save", SAVES)
def test_a_new_file_has_what_the_umask_leaves_and_an_old_one_keeps_its_mode(tmp_path, save, mask):
    with with_umask(mask):
        SAVES[save](tmp_path)
        assert modes(tmp_path) == {0o666 & ~mask}
        for mode in (0o600, 0o640, 0o604):
            for path in tmp_path.iterdir():
                path.chmod(mode)
            SAVES[save](tmp_path)
            assert modes(tmp_path) == {mode}


@pytest.mark.parametrize("save", ["save_file", "save_sharded"])
def test_nobody_reads_a_file_before_it_has_its_name_who_may_not_afterwards(tmp_path, save):
    seen: set[int] = set()

    def look(done: int, total: int) -> None:
        seen.update(modes(tmp_path))

    with with_umask(0o000):
        SAVES[save](tmp_path)
        for path in tmp_path.iterdir():
            path.chmod(0o600)
        SAVES[save](tmp_path, progress=look)
    assert seen == {0o600}


# What is tried out first, the three files, and the index.
@pytest.mark.parametrize("at", [0, 2, 3, 4, 5])
def test_a_link_that_has_a_hidden_name_of_a_sharded_save_is_not_followed(tmp_path, monkeypatch, at):
    """However it was guessed."""
    victim = tmp_path / "victim"
    folder = tmp_path / "model"
    folder.mkdir()
    sharded(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    token_hex, made = secrets.token_hex, 0

    def guessed(size: int) -> str:
        nonlocal made
        token = token_hex(size)
        if made == at:
            for name in ("model.safetensors", *before):
                (folder / f".{name}.{token}.veturboio-tmp").symlink_to(victim)
        made += 1
        return token

    with monkeypatch.context() as patch:
        patch.setattr(secrets, "token_hex", guessed)
        with pytest.raises(FileExistsError):
            sharded(folder)
    assert not victim.exists()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")} == before


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import veturboio
from fakes.faults import Effect, Fault, faults
from test_hidden_files import SHARD_BYTES, TENSORS
folder, call, first = Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])
with faults(Fault(call, Effect.KILL, first=first), folder):
    veturboio.save_sharded(TENSORS, folder, SHARD_BYTES)
"""


@pytest.mark.parametrize(("call", "first"), [("pwrite", 1), ("pwrite", 3), ("rename", 3), ("rename", 5), ("rename", 7)])
@pytest.mark.parametrize("old", [False, True])
def test_the_next_sharded_save_removes_what_a_killed_one_left(tmp_path, call, first, old):
    if old:
        sharded(tmp_path)
    others = {".model.safetensors.0123abcd.veturboio-kept", ".other.safetensors.0123abcd.veturboio-tmp", ".model.safetensors"}
    for name in others:
        (tmp_path / name).touch()
    here = Path(__file__).parent
    arguments = (here, here.parent, tmp_path, call, first)
    done = run_python(KILLED, *arguments, check=False, env=preloading(environment()))
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = {path.name for path in tmp_path.iterdir() if path.name.endswith(".veturboio-tmp")} - others
    assert left
    sharded(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    index = "model.safetensors.index.json"
    assert names == {*others, index, *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))}
    assert_same(veturboio.load(tmp_path / index), TENSORS)


def test_a_sharded_save_that_is_under_way_is_not_taken_for_a_killed_one(tmp_path):
    once = []

    def another(done: int, total: int) -> None:
        if not once:
            once.append(done)
            thread = threading.Thread(target=sharded, args=(tmp_path,))
            thread.start()
            thread.join()

    sharded(tmp_path, progress=another)
    assert once
    assert_same(veturboio.load(tmp_path), TENSORS)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_directory_that_somebody_has_locked_is_saved_into(tmp_path):
    code = """
    import fcntl, os, sys
    descriptor = os.open(sys.argv[1], os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    import torch, veturboio
    veturboio.save_sharded({"a": torch.ones(3)}, sys.argv[1])
    """
    run_python(code, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
