"""What goes wrong between here and SFCS: what passes is gone through, what does not is told, and nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fresh_process import ForkedPython, run_python
from sfcs_cluster import Folder, configurations, process_environment

import veturboio

# Saves 6 MB, in several parts, and loads them; prints the warnings. The arguments: what to do, and the uri.
PROGRAM = """
import sys, warnings
import torch, veturboio
action, uri = sys.argv[1:]
expected = {"a": torch.arange(1_500_000, dtype=torch.int32), "b": torch.arange(1000)}
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    try:
        if action == "save":
            veturboio.save_file(expected, uri)
        else:
            loaded = veturboio.load(uri)
            assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items()), "wrong bytes"
    except OSError as error:
        print(type(error).__name__, error.errno, error.filename, error.strerror, sep="|")
for warning in caught:
    print("warning:", warning.message)
"""
NEW = {"a": torch.arange(1_500_000, dtype=torch.int32), "b": torch.arange(1000)}
OLD = {"old": torch.ones(3)}


@pytest.fixture(scope="module", autouse=True)
def python() -> Iterator[None]:
    _forked.append(ForkedPython())
    yield
    _forked.pop().close()


_forked: list[ForkedPython] = []


def run(folder: Folder, action: str, **changes: str) -> list[str]:
    """What the program prints."""
    before = configurations()
    environment = process_environment(folder.cluster, **changes)
    lines = _forked[0].run(PROGRAM, action, folder.uri("model"), env=environment).splitlines()
    assert configurations() <= before  # what a killed one has left is removed by the next
    return lines


def assert_nothing_is_left(folder: Folder, *names: str) -> None:
    assert folder.names() == sorted(names)
    assert not folder.cluster.left_open()


LOAD_CALLS = ["cfsBuilderConnect", "cfsGetPathInfo", "cfsOpenFile", "cfsPread"]
SAVE_CALLS = [
    "cfsBuilderConnect",
    "cfsGetPathInfo",
    "cfsGetDefaultBlockSize",
    "cfsCreateDirectory",
    "cfsOpenFileAcc",
    "cfsWrite",
    "cfsHSync",
    "cfsConcat",
    "cfsRename2",
    "cfsDelete",
]


@pytest.mark.parametrize("when", ["1", "2"])
@pytest.mark.parametrize("function", LOAD_CALLS)
def test_a_load_goes_through_a_failure_that_passes(sfcs: Folder, function, when):
    veturboio.save_file(NEW, sfcs.uri("model"))
    lines = run(sfcs, "load", FAKE_CLOUDFS_FAIL=f"{function}:{when}:ETIMEDOUT")
    if function == "cfsBuilderConnect":
        assert lines == []  # one connection is made, and has been tried before by who waits for access to be lent
    else:
        assert len(lines) == 1
        assert f"{sfcs.uri('model')}: 1 call failed and was made again; the last: {function}" in lines[0]
    assert_nothing_is_left(sfcs, "model")


@pytest.mark.parametrize("when", ["1:ETIMEDOUT", "1:ETIMEDOUT:after", "2:ECONNRESET"])
@pytest.mark.parametrize("function", SAVE_CALLS)
def test_a_save_goes_through_a_failure_that_passes(sfcs: Folder, function, when):
    veturboio.save_file(OLD, sfcs.uri("model"))
    lines = run(sfcs, "save", FAKE_CLOUDFS_FAIL=f"{function}:{when}")
    assert all("call failed and was made again" in line for line in lines), lines
    assert run(sfcs, "load") == []
    assert_nothing_is_left(sfcs, "model")


@pytest.mark.parametrize("function", LOAD_CALLS)
@pytest.mark.parametrize("error", ["ETIMEDOUT", "EACCES"])
def test_a_load_tells_of_a_failure_that_does_not_pass(sfcs: Folder, function, error):
    veturboio.save_file(NEW, sfcs.uri("model"))
    [line] = run(sfcs, "load", FAKE_CLOUDFS_FAIL=f"{function}:*:{error}")
    kind, _, file, text = line.split("|")
    assert kind == {"ETIMEDOUT": "TimeoutError", "EACCES": "PermissionError"}[error]
    assert file == sfcs.uri("model")
    assert text.startswith(f"{function}: ")
    assert ("for the 4th time" in text) == (error == "ETIMEDOUT")
    assert ("(at byte 0)" in text) == (function == "cfsPread")
    assert_nothing_is_left(sfcs, "model")


@pytest.mark.parametrize("function", [call for call in SAVE_CALLS if call != "cfsDelete"])
@pytest.mark.parametrize("when", ["*:EACCES", "*:ETIMEDOUT", "2+:ENOSPC"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(sfcs: Folder, function, when):
    veturboio.save_file(OLD, sfcs.uri("model"))
    lines = run(sfcs, "save", FAKE_CLOUDFS_FAIL=f"{function}:{when}")
    once = function in ("cfsBuilderConnect", "cfsGetDefaultBlockSize", "cfsCreateDirectory", "cfsConcat", "cfsRename2")
    if when.startswith("2+") and once:
        assert lines == []  # there was no second call
    else:
        _, _, file, text = lines[0].split("|")
        assert (file, function in text) == (sfcs.uri("model"), True)
        assert veturboio.load(sfcs.uri("model")).keys() == OLD.keys()
    assert_nothing_is_left(sfcs, "model")


def test_a_close_that_fails_fails_the_save(sfcs: Folder):
    veturboio.save_file(OLD, sfcs.uri("model"))
    [line] = run(sfcs, "save", FAKE_CLOUDFS_FAIL="cfsCloseFile:1:EIO")
    assert line.startswith(f"OSError|5|{sfcs.uri('model')}|cfsCloseFile: ")
    assert veturboio.load(sfcs.uri("model")).keys() == OLD.keys()
    assert_nothing_is_left(sfcs, "model")


def test_what_could_not_be_removed_is_told_and_goes_with_the_next_save(sfcs: Folder):
    [line] = run(sfcs, "save", FAKE_CLOUDFS_FAIL="cfsDelete:*:EACCES")
    assert "what is left of the save was not removed" in line
    assert len(sfcs.names()) > 1
    assert run(sfcs, "save") == []
    assert_nothing_is_left(sfcs, "model")


@pytest.mark.parametrize("seed", range(3))
def test_short_reads_and_writes_are_continued(sfcs: Folder, seed):
    assert run(sfcs, "save", FAKE_CLOUDFS_SHORT=str(seed)) == []
    assert run(sfcs, "load", FAKE_CLOUDFS_SHORT=str(seed)) == []
    assert_nothing_is_left(sfcs, "model")


def test_a_library_without_the_newer_functions(sfcs: Folder):
    library = str(sfcs.cluster.old_library)
    assert run(sfcs, "save", VETURBOIO_LIBCFS=library) == []
    assert run(sfcs, "load", VETURBOIO_LIBCFS=library) == []
    assert_nothing_is_left(sfcs, "model")


def test_no_library(sfcs: Folder):
    environment = process_environment(sfcs.cluster)
    del environment["VETURBOIO_LIBCFS"]
    [line] = run_python(PROGRAM, "load", sfcs.uri("model"), env=environment).stdout.splitlines()
    beside = Path(veturboio.library_path).with_name("libcloudfs.so")
    if beside.exists():
        pytest.skip(f"there is a {beside}")
    assert f"VETURBOIO_LIBCFS is not set, there is no {beside}, and the loader's search path has none" in line
    assert line.endswith("Get it by: python -m veturboio.get_libcfs")


def test_a_library_that_is_another_one(sfcs: Folder):
    [line] = run(sfcs, "load", VETURBOIO_LIBCFS=veturboio.library_path)
    assert f"{veturboio.library_path} has no function cfsGetLastError: it is another library" in line
    [line] = run(sfcs, "load", VETURBOIO_LIBCFS=__file__)
    assert f"SFCS's client library does not load: VETURBOIO_LIBCFS={__file__}: " in line


def test_settings_that_are_missing(sfcs: Folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SFCS_REGION")
        patch.delenv("SFCS_NS_ID")
        with pytest.raises(ValueError, match=r"SFCS_REGION.*SFCS_NS_ID"):
            veturboio.load(sfcs.uri("model"))


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


@pytest.mark.parametrize("moment", range(3))
def test_a_save_that_is_killed_leaves_the_old_file_and_the_next_one_cleans_up(sfcs: Folder, moment):
    veturboio.save_file(OLD, sfcs.uri("model"))
    environment = process_environment(sfcs.cluster, FAKE_CLOUDFS_MIB_PER_S="2")
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "save", sfcs.uri("model")], env=environment) as process:
        wait_for(lambda: any("part-" in name for name in sfcs.names()))
        time.sleep(0.1 * moment)
        process.send_signal(signal.SIGKILL)
    assert len(sfcs.names()) > 1
    assert veturboio.load(sfcs.uri("model")).keys() == OLD.keys()
    assert run(sfcs, "save") == []
    assert run(sfcs, "load") == []
    assert_nothing_is_left(sfcs, "model")


def test_two_saves_of_one_file_at_once_end_with_one_of_them_whole(sfcs: Folder):
    environment = process_environment(sfcs.cluster, FAKE_CLOUDFS_DELAY_MS="10")
    command = [sys.executable, "-c", PROGRAM, "save", sfcs.uri("model")]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "")
    assert run(sfcs, "load") == []
    assert_nothing_is_left(sfcs, "model")


def test_a_file_that_is_replaced_while_it_is_read(sfcs: Folder):
    """The readers that are there go on with what they opened; no more are opened."""
    veturboio.save_file(NEW, sfcs.uri("model"))
    code = """
    import os, sys, warnings
    import torch, veturboio
    uri, path = sys.argv[1:]
    reader = torch.classes.veturbo.FileReader(uri, None)
    old = open(path, "rb").read()
    with open(path + ".new", "wb") as out:
        out.write(b"x" * 100)
    os.rename(path + ".new", path)
    buffer = torch.empty(reader.size(), dtype=torch.uint8)
    reader.read_into(buffer, 0)
    assert buffer.numpy().tobytes() == old if hasattr(buffer, "numpy") else True
    print(reader.warnings())
    """
    out = run_python(code, sfcs.uri("model"), sfcs.path / "model", env=process_environment(sfcs.cluster)).stdout
    assert "read by fewer readers than it might have been: the file has been replaced since it was opened" in out


def test_a_forked_child_has_a_connection_of_its_own(sfcs: Folder):
    veturboio.save_file(OLD, sfcs.uri("model"))
    code = """
    import os, sys
    import torch, veturboio
    uri = sys.argv[1]
    reader = torch.classes.veturbo.FileReader(uri, None)
    veturboio.load(uri)
    child = os.fork()
    if child == 0:
        try:
            reader.read_into(torch.empty(1, dtype=torch.uint8), 0)
        except ValueError as error:
            assert "opened before this process was forked" in str(error), error
            del reader
            veturboio.load(uri)
            sys.exit(0)
        sys.exit(3)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    veturboio.load(uri)
    """
    run_python(code, sfcs.uri("model"), env=process_environment(sfcs.cluster))
    assert_nothing_is_left(sfcs, "model")


def test_many_readers_and_writers_are_at_work_at_once(sfcs: Folder):
    environment = {"FAKE_CLOUDFS_DELAY_MS": "50"}
    assert run(sfcs, "save", **environment) == []
    assert sfcs.cluster.exits()[-1].most_writes_at_once >= 4
    assert run(sfcs, "load", **environment) == []
    assert sfcs.cluster.exits()[-1].most_reads_at_once >= 4
