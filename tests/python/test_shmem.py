"""Files in shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path

import pytest
import safetensors.torch
import torch

import veturboio


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 9_000_001])
def test_holds_the_file_byte_for_byte(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(content)
    memory = veturboio.load_to_shmem(tmp_path / "file", num_thread=2)
    try:
        assert memory.size == size
        assert bytes(memory.buf) == content
    finally:
        memory.close()
        memory.unlink()


PROGRAM = """
import sys
from multiprocessing.shared_memory import SharedMemory
import safetensors.torch
memory = SharedMemory(name=sys.argv[1])
tensors = safetensors.torch.load(bytes(memory.buf))
memory.close()
print(tensors["a"].tolist())
"""


def test_another_process_attaches_to_it_by_name(tmp_path):
    safetensors.torch.save_file({"a": torch.arange(3)}, tmp_path / "model")
    memory = veturboio.load_to_shmem(tmp_path / "model")
    try:
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, memory.name]
        # The other process's resource tracker unlinks what it attached to, and warns (a fault of Python before 3.13).
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stdout == "[0, 1, 2]\n"
    finally:
        memory.close()
        Path("/dev/shm", memory.name).unlink(missing_ok=True)


def test_leaves_no_shared_memory_behind_when_it_fails(tmp_path, monkeypatch):
    prefix = f"/v{os.getpid():x}f_"
    monkeypatch.setattr(shared_memory, "_SHM_NAME_PREFIX", prefix)
    with pytest.raises(FileNotFoundError):
        veturboio.load_to_shmem(tmp_path / "missing")
    (tmp_path / "empty").touch()
    with pytest.raises(veturboio.FileFormatError, match="the file is empty"):
        veturboio.load_to_shmem(tmp_path / "empty")
    assert not list(Path("/dev/shm").glob(f"{prefix[1:]}*"))
    (tmp_path / "whole").write_bytes(safetensors.torch.save({"a": torch.arange(3)}))
    memory = veturboio.load_to_shmem(tmp_path / "whole")
    assert list(Path("/dev/shm").glob(f"{prefix[1:]}*"))  # which is where it would have been
    memory.close()
    memory.unlink()


def test_a_ctrl_c_while_it_is_reserved_is_answered_soon(tmp_path, monkeypatch):
    """Reserving is a call to the system that no signal ends: one for a large file would take seconds."""
    prefix = f"/v{os.getpid():x}r_"
    monkeypatch.setattr(shared_memory, "_SHM_NAME_PREFIX", prefix)
    with (tmp_path / "file").open("wb") as file:
        file.truncate(300 << 20)
    reserved = []

    def reserve(descriptor: int, offset: int, length: int) -> None:
        reserved.append((offset, length))
        if offset > 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    with pytest.raises(KeyboardInterrupt):
        veturboio.load_to_shmem(tmp_path / "file")
    [(_, first), (offset, length)] = reserved
    assert offset == first == length <= 64 << 20
    assert not list(Path("/dev/shm").glob(f"{prefix[1:]}*"))
