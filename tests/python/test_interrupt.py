"""Ctrl-C, and cancelling a job."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch

import veturboio

# Loads in a loop, says when each load begins, and how it ended.
PROGRAM = """
import sys
import time
import veturboio
try:
    while True:
        print("loading", flush=True)
        veturboio.load(sys.argv[1], num_thread=1, use_direct_io=False)
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
"""


@pytest.fixture
def big_file(tmp_path):
    """A model of 4 GiB of zeros that takes no space on the disk: reading it takes seconds."""
    file = tmp_path / "big.safetensors"
    veturboio.save_file({"a": torch.zeros(0)}, file)
    size = 4 << 30
    header = b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    with file.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        out.truncate(8 + len(header) + size)
    return file


def test_ctrl_c_ends_a_long_load_within_half_a_second(big_file):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, big_file], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "loading\n"
        time.sleep(0.3)  # well inside the first load
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        lines = process.stdout.read().split()  # to the end of the process
    # Both clocks count from the system's start.
    assert 0 <= float(lines[-1]) - sent < 0.5


def test_a_load_that_is_interrupted_gives_its_memory_back(big_file):
    def resident() -> int:
        with open("/proc/self/statm") as statm:  # noqa: PTH123
            return int(statm.read().split()[1]) * 4096

    before = resident()
    job = torch.ops.veturbo.start_load(str(big_file), num_threads=1)
    assert not job.wait(0.2)
    job.cancel()
    assert job.wait(-1.0)
    with pytest.raises(RuntimeError, match="cancelled"):
        job.result()
    done, total = job.progress()
    assert 0 < done < total == 4 << 30
    del job
    assert resident() - before < 256 << 20


def test_a_cancelled_save_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    file = tmp_path / "model"
    veturboio.save_file({"a": torch.ones(3)}, file)
    job = torch.ops.veturbo.start_save({"a": torch.zeros(256 << 20, dtype=torch.uint8)}, str(file), num_threads=1)
    job.cancel()
    assert job.wait(-1.0)
    with pytest.raises(RuntimeError, match="cancelled"):
        job.result()
    assert veturboio.load(file)["a"].tolist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
