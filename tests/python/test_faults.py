"""A short campaign of faults (make test-faults runs a long one), and what earlier ones have found."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from fresh_process import environment, run_python

import veturboio
from fakes.faults import preloading
from fakes.slow_mount import NoMountError, SlowFs

TESTS = Path(__file__).parents[1]


def test_a_short_campaign():
    command = [sys.executable, Path(__file__).with_name("fault_campaign.py"), "--scenarios", "60", "--shortages", "25"]
    command += ["--kills", "10", "--sfcs", "20", "--servers", "20"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = "60 scenarios, 25 shortages, 10 kills, 20 in SFCS and 20 at servers"
    assert done.stdout.endswith(f"{counts} from seed 1 on, 0 violations\n")


def run_with_fault(code: str, *arguments: object) -> list[str]:
    """What a program prints that has `Fault`, `Effect`, `faults`, `errno`, `Path` and `paths`, its arguments."""
    beginning = "import errno, sys\nfrom pathlib import Path\nimport torch, veturboio\n"
    beginning += "from fakes.faults import Effect, Fault, faults\npaths = [Path(path) for path in sys.argv[1:]]\n"
    with_fakes = environment()
    with_fakes["PYTHONPATH"] += f"{os.pathsep}{TESTS}"
    return run_python(beginning + code, *arguments, env=preloading(with_fakes)).stdout.splitlines()


LOAD = """
try:
    with faults(Fault({call!r}, Effect.FAIL, {code}, first={first}), paths[0]):
        veturboio.load(paths[0])
except Exception as error:
    print(type(error).__name__, getattr(error, "errno", None), getattr(error, "filename", None), str(error), sep="|")
"""


@pytest.mark.parametrize(
    ("zip_format", "call", "first"),
    # Of a file from before PyTorch 1.6 only the beginning is read by the engine.
    [
        *((True, call, first) for call in ("read", "pread") for first in (1, 3)),
        (False, "read", 1),
        (False, "read", 3),
        (False, "pread", 1),
    ],
)
def test_reading_a_torch_file_that_fails_names_it(tmp_path, zip_format, call, first):
    file = tmp_path / "model.pt"
    torch.save({"a": torch.arange(1000), "b": torch.ones(5)}, file, _use_new_zipfile_serialization=zip_format)
    [line] = run_with_fault(LOAD.format(call=call, code=errno.EIO, first=first), file)
    kind, code, name, text = line.split("|")
    assert (kind, code, name) == ("OSError", str(errno.EIO), str(file))
    assert os.strerror(errno.EIO) in text


def test_a_torch_file_for_which_there_is_no_memory(tmp_path):
    file = tmp_path / "model.pt"
    torch.save({"a": torch.arange(1000)}, file)
    [line] = run_with_fault(LOAD.format(call="mmap", code=errno.ENOMEM, first=1), file)
    assert line == f"MemoryError|None|None|{file}: mmap: {os.strerror(errno.ENOMEM)}"


@pytest.mark.parametrize("files_before", [0, 2, 3])
@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_files_that_cannot_all_have_their_names_leave_the_old_model(tmp_path, failing, files_before):
    """Also where some have theirs already."""
    if files_before:
        veturboio.save_sharded({f"old.{i}": torch.ones(10) for i in range(files_before)}, tmp_path, 40)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code = """
    new = {f"new.{i}": torch.zeros(10) for i in range(3)}
    # The files' own names: those that they have before are longer.
    names = [*(f"/model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)), "/model.safetensors.index.json"]
    try:
        with faults(Fault("rename", Effect.FAIL, errno.EIO, times=1), str(paths[0]) + names[int(sys.argv[2]) - 1]):
            veturboio.save_sharded(new, paths[0], 40)
    except OSError as error:
        print(error.errno)
    """
    assert run_with_fault(textwrap.dedent(code), tmp_path, failing) == [str(errno.EIO)]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_an_index_that_cannot_be_written_is_told_of(tmp_path, call):
    code = """
    try:
        with faults(Fault(sys.argv[2], Effect.FAIL, errno.ENOSPC), str(paths[0]) + "/..model.safetensors.index.json"):
            veturboio.save_sharded({f"new.{i}": torch.zeros(10) for i in range(3)}, paths[0], 40)
    except OSError as error:
        print(error.errno, error.filename)
    """
    [line] = run_with_fault(textwrap.dedent(code), tmp_path, call)
    assert line.startswith(f"{errno.ENOSPC} {tmp_path}/.model.safetensors.index.json.")
    assert list(tmp_path.iterdir()) == []


def test_files_are_opened_one_after_the_other_where_no_thread_can_be_started(tmp_path):
    veturboio.save_sharded({f"w.{i}": torch.full((10,), i) for i in range(3)}, tmp_path, 40)
    code = """
    with faults(Fault("pthread_create", Effect.FAIL, errno.EAGAIN), "") as hits:
        found = veturboio.load(paths[0])
    print(len(hits), [found[f"w.{i}"][-1].item() for i in range(3)])
    """
    assert run_with_fault(textwrap.dedent(code), tmp_path) == ["3 [0, 1, 2]"]


@pytest.fixture
def far(tmp_path: Path) -> Iterator[SlowFs]:
    """That folder as if it were another machine's."""
    with ExitStack() as mounts:
        try:
            mount = mounts.enter_context(SlowFs(tmp_path, delay_ms=0, mb_per_s=0))
        except NoMountError as error:
            pytest.skip(str(error))
        yield mount


def test_a_header_that_does_not_come_is_given_up_in_time(tmp_path, far):
    """From another machine: those of this one's disks are read at once."""
    veturboio.save_file({"a": torch.zeros(3)}, tmp_path / "model")
    code = """
    import time
    began = time.monotonic()
    with faults(Fault("pread", Effect.SLOW, 5_000, first=1, times=-1), paths[0]):
        try:
            veturboio.load(paths[0], timeout=0.5)
        except TimeoutError as error:
            print(error)
        print(time.monotonic() - began)
    """
    error, seconds = run_with_fault(textwrap.dedent(code), far / "model")
    assert error == f"{far / 'model'}: not done after 0.5 s, given up while its header was read"
    assert 0.5 <= float(seconds) < 3


def test_nobody_waits_for_a_server_that_does_not_answer_before_there_is_a_job_to_give_up(tmp_path, far):
    veturboio.save_file({"a": torch.arange(1000)}, tmp_path / "model")
    code = """
    import time
    buffer = torch.zeros(paths[0].stat().st_size, dtype=torch.uint8)
    with faults(Fault("pread", Effect.SLOW, 3_000, first=1, times=-1), paths[0]):
        began = time.monotonic()
        job = torch.ops.veturbo.start_read_([buffer], [0], str(paths[0]))
        print(time.monotonic() - began)
        job.result()
    print(buffer.numpy().tobytes() == paths[0].read_bytes())
    """
    seconds, same = run_with_fault(textwrap.dedent(code), far / "model")
    assert float(seconds) < 1.5
    assert same == "True"
