"""What goes wrong between here and SFCS: what passes is gone through, what does not is told, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fresh_process import ForkedPython, run_python
from sfcs_cluster import Folder, abandoned_configurations, process_environment

import veturboio

# Saves a model, of 6 MB if nothing else is said, or loads it; prints the warnings. The arguments: what to do, and the uri.
PROGRAM = """
import os, sys, warnings
import torch, veturboio
action, uri = sys.argv[1:]
expected = {"a": torch.arange(int(os.environ.get("ELEMENTS", 1_500_000)), dtype=torch.int32), "b": torch.arange(1000)}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warnings.filterwarnings("ignore", ".*the key and IV that encrypt this file")
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


class Client:
    """Runs the program, each time in a process of its own, and looks what that leaves behind."""

    def __init__(self, folder: Folder, python: ForkedPython) -> None:
        self.folder, self.python = folder, python

    def run(self, action: str, **changes: str) -> list[str]:
        """What it prints."""
        cluster = self.folder.cluster
        cluster.forget_calls()
        environment = process_environment(cluster, **changes)
        lines = self.python.run(PROGRAM, action, self.folder.uri("model"), env=environment).splitlines()
        assert not abandoned_configurations()
        [end] = cluster.exits()
        assert not end.left_open
        return lines


@pytest.fixture(scope="module")
def python() -> Iterator[ForkedPython]:
    forked = ForkedPython()
    yield forked
    forked.close()


@pytest.fixture
def client(sfcs: Folder, python: ForkedPython) -> Client:
    return Client(sfcs, python)


# Saves and loads are encrypted by these without a word in the program.
ENCRYPTED = {"VETURBOIO_USE_CIPHER": "1", "VETURBOIO_KEY": "AAECAwQFBgcICQoLDA0ODw==", "VETURBOIO_IV": "AAECAwQFBgcICQoLDA0ODw=="}
CIPHERS = pytest.mark.parametrize("cipher", [{}, ENCRYPTED], ids=["plain", "encrypted"])
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
def test_a_load_goes_through_a_failure_that_passes(sfcs: Folder, client: Client, function, when):
    veturboio.save_file(NEW, sfcs.uri("model"))
    # Late answers: or the first reader might have read all before a second one has opened the file.
    lines = client.run("load", FAKE_CLOUDFS_FAIL=f"{function}:{when}:ETIMEDOUT", FAKE_CLOUDFS_DELAY_MS="5")
    if function == "cfsBuilderConnect":
        assert lines == []  # one connection is made, and has been tried before by who waits for access to be lent
    else:
        assert len(lines) == 1
        assert f"{sfcs.uri('model')}: 1 call failed and was made again; the last: {function}" in lines[0]
    assert sfcs.names() == ["model"]


@pytest.mark.parametrize("when", ["1:ETIMEDOUT", "1:ETIMEDOUT:after", "2:ECONNRESET"])
@pytest.mark.parametrize("function", SAVE_CALLS)
def test_a_save_goes_through_a_failure_that_passes(sfcs: Folder, client: Client, function, when):
    veturboio.save_file(OLD, sfcs.uri("model"))
    lines = client.run("save", FAKE_CLOUDFS_FAIL=f"{function}:{when}")
    # A second call is made to every function but these; the connection is made by who waits for access to be lent.
    once = ("cfsGetDefaultBlockSize", "cfsCreateDirectory", "cfsConcat", "cfsRename2", "cfsDelete")
    expected = function != "cfsBuilderConnect" and not (when.startswith("2") and function in once)
    assert len(lines) == expected
    assert all(f": 1 call failed and was made again; the last: {function}" in line for line in lines), lines
    code = when.split(":")[1]
    assert any(call.error == code for call in sfcs.cluster.calls(function)) == (expected or when.startswith("1"))
    assert client.run("load") == []
    assert sfcs.names() == ["model"]


def test_a_save_waits_while_another_gives_its_file_the_name(sfcs: Folder, client: Client):
    veturboio.save_file(OLD, sfcs.uri("model"))
    [line] = client.run("save", FAKE_CLOUDFS_FAIL="cfsRename2:1:EBUSY")
    assert ": 1 call failed and was made again; the last: cfsRename2: Device or resource busy" in line
    assert client.run("load") == []
    assert sfcs.names() == ["model"]


@pytest.mark.parametrize("function", LOAD_CALLS)
@pytest.mark.parametrize("error", ["ETIMEDOUT", "EACCES"])
def test_a_load_tells_of_a_failure_that_does_not_pass(sfcs: Folder, client: Client, function, error):
    veturboio.save_file(NEW, sfcs.uri("model"))
    [line] = client.run("load", FAKE_CLOUDFS_FAIL=f"{function}:*:{error}")
    kind, _, file, text = line.split("|")
    assert kind == {"ETIMEDOUT": "TimeoutError", "EACCES": "PermissionError"}[error]
    assert file == sfcs.uri("model")
    assert text.startswith(f"{function}: ")
    assert ("for the 4th time" in text) == (error == "ETIMEDOUT")
    assert ("(at byte 0)" in text) == (function == "cfsPread")
    assert sfcs.names() == ["model"]


@pytest.mark.parametrize(
    ("function", "when"),
    [
        *((function, when) for function in SAVE_CALLS[:-1] for when in ("*:EACCES", "2+:ENOSPC")),
        *((function, "*:ETIMEDOUT") for function in ("cfsOpenFileAcc", "cfsWrite", "cfsRename2")),
    ],
)
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(sfcs: Folder, client: Client, function, when):
    veturboio.save_file(OLD, sfcs.uri("model"))
    lines = client.run("save", FAKE_CLOUDFS_FAIL=f"{function}:{when}")
    once = function in ("cfsBuilderConnect", "cfsGetDefaultBlockSize", "cfsCreateDirectory", "cfsConcat", "cfsRename2")
    if when.startswith("2+") and once:
        assert lines == []  # there was no second call
    else:
        _, _, file, text = lines[0].split("|")
        assert (file, function in text) == (sfcs.uri("model"), True)
        assert veturboio.load(sfcs.uri("model")).keys() == OLD.keys()
    assert sfcs.names() == ["model"]


def test_a_close_that_fails_fails_the_save(sfcs: Folder, client: Client):
    veturboio.save_file(OLD, sfcs.uri("model"))
    [line] = client.run("save", FAKE_CLOUDFS_FAIL="cfsCloseFile:1:EIO")
    assert line.startswith(f"OSError|5|{sfcs.uri('model')}|cfsCloseFile: ")
    assert veturboio.load(sfcs.uri("model")).keys() == OLD.keys()
    assert sfcs.names() == ["model"]


def test_what_could_not_be_removed_is_told_and_goes_with_the_next_save(sfcs: Folder, client: Client):
    [line] = client.run("save", FAKE_CLOUDFS_FAIL="cfsDelete:*:EACCES")
    assert "what is left of the save was not removed" in line
    assert len(sfcs.names()) > 1
    assert client.run("save") == []
    assert sfcs.names() == ["model"]


def test_of_what_opens_and_says_that_it_does_not_nothing_is_left_after_the_next_save(sfcs: Folder, client: Client):
    [line] = client.run("save", FAKE_CLOUDFS_FAIL="cfsOpenFileAcc:*:EIO:after")
    assert line.startswith("OSError|5|")
    assert client.run("save") == []
    assert sfcs.names() == ["model"]


@CIPHERS
@pytest.mark.parametrize("seed", range(3))
def test_short_reads_and_writes_are_continued(sfcs: Folder, client: Client, seed, cipher):
    assert client.run("save", FAKE_CLOUDFS_SHORT=str(seed), **cipher) == []
    assert client.run("load", FAKE_CLOUDFS_SHORT=str(seed), **cipher) == []
    assert sfcs.names() == ["model"]


@CIPHERS
def test_a_library_without_the_newer_functions(sfcs: Folder, client: Client, cipher):
    library = str(sfcs.cluster.old_library)
    assert client.run("save", VETURBOIO_LIBCFS=library, **cipher) == []
    assert client.run("load", VETURBOIO_LIBCFS=library, **cipher) == []
    assert sfcs.names() == ["model"]


def test_no_library(sfcs: Folder):
    environment = process_environment(sfcs.cluster)
    del environment["VETURBOIO_LIBCFS"]
    [line] = run_python(PROGRAM, "load", sfcs.uri("model"), env=environment).stdout.splitlines()
    beside = Path(veturboio.library_path).with_name("libcloudfs.so")
    if beside.exists():
        pytest.skip(f"there is a {beside}")
    assert f"VETURBOIO_LIBCFS is not set, there is no {beside}, and the loader's search path has none" in line
    assert line.endswith("Get it by: python -m veturboio.get_libcfs")


def test_a_library_where_the_loader_looks(sfcs: Folder):
    environment = process_environment(sfcs.cluster, LD_LIBRARY_PATH=str(sfcs.cluster.library.parent))
    del environment["VETURBOIO_LIBCFS"]
    for action in ("save", "load"):
        assert run_python(PROGRAM, action, sfcs.uri("model"), env=environment).stdout == ""


def test_a_library_that_is_another_one(sfcs: Folder, client: Client):
    def load(library: str) -> list[str]:
        environment = process_environment(sfcs.cluster, VETURBOIO_LIBCFS=library)
        return client.python.run(PROGRAM, "load", sfcs.uri("model"), env=environment).splitlines()

    [line] = load(veturboio.library_path)
    assert f"{veturboio.library_path} has no function cfsGetLastError: it is another library" in line
    [line] = load(__file__)
    assert f"SFCS's client library does not load: VETURBOIO_LIBCFS={__file__}: " in line
    assert "python -m veturboio.get_libcfs" in line


def test_settings_that_are_missing(sfcs: Folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SFCS_REGION")
        patch.delenv("SFCS_NS_ID")
        with pytest.raises(ValueError, match=r"SFCS_REGION.*SFCS_NS_ID"):
            veturboio.load(sfcs.uri("model"))


# Each moment between two calls that change something. Before the rename the old file is there, after it the new one.
MOMENTS = {
    "cfsCreateDirectory:1:KILL:after": "old",
    "cfsOpenFileAcc:1:KILL:after": "old",
    "cfsWrite:1:KILL": "old",
    "cfsWrite:3:KILL:after": "old",
    "cfsCloseFile:2:KILL:after": "old",
    "cfsConcat:1:KILL": "old",
    "cfsConcat:1:KILL:after": "old",
    "cfsRename2:1:KILL:after": "new",
    "cfsDelete:1:KILL:after": "new",
}


@pytest.mark.parametrize(
    ("elements", "cipher"),
    [("1500000", {}), ("1500000", ENCRYPTED), ("1000", {})],
    ids=["parts", "encrypted-parts", "one-part"],
)
@pytest.mark.parametrize(("moment", "left"), MOMENTS.items())
def test_a_save_that_is_killed_leaves_a_whole_file_and_the_next_one_cleans_up(sfcs, client, moment, left, elements, cipher):
    if elements == "1000" and moment.startswith(("cfsConcat", "cfsCloseFile:2", "cfsWrite:3")):
        moment, left = "cfsRename2:1:KILL", "old"  # one part is not joined, is written by fewer calls, and closed by one
    veturboio.save_file(OLD, sfcs.uri("model"))
    environment = process_environment(sfcs.cluster, FAKE_CLOUDFS_FAIL=moment, ELEMENTS=elements, **cipher)
    with pytest.raises(AssertionError, match="exit code -9"):
        client.python.run(PROGRAM, "save", sfcs.uri("model"), env=environment)
    if left == "old":
        assert veturboio.load(sfcs.uri("model")).keys() == OLD.keys()
    else:
        client.run("load", ELEMENTS=elements, **cipher)
    assert client.run("save", ELEMENTS=elements, **cipher) == []
    assert client.run("load", ELEMENTS=elements, **cipher) == []
    assert sfcs.names() == ["model"]


@pytest.mark.parametrize("elements", ["1500000", "1000"], ids=["parts", "one-part"])
def test_saves_of_one_file_at_once_end_with_one_of_them_whole(sfcs: Folder, client: Client, elements):
    environment = process_environment(sfcs.cluster, FAKE_CLOUDFS_DELAY_MS="10", ELEMENTS=elements)
    command = [sys.executable, "-c", PROGRAM, "save", sfcs.uri("model")]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        # Two may have wanted to give the name at the same moment.
        assert all("made again; the last: cfsRename2: Device or resource busy" in line for line in out.splitlines()), out
    assert client.run("load", ELEMENTS=elements) == []
    assert sfcs.names() == ["model"]


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
    assert bytes(buffer.tolist()) == old
    print(reader.warnings())
    """
    slow = process_environment(sfcs.cluster, FAKE_CLOUDFS_DELAY_MS="100")  # so that one reader does not have it all
    out = run_python(code, sfcs.uri("model"), sfcs.path / "model", env=slow).stdout
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
    assert sfcs.names() == ["model"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_leaves_nothing_when_it_ends(sfcs: Folder, method):
    veturboio.save_file(OLD, sfcs.uri("model"))
    code = """
    import multiprocessing, sys
    import veturboio
    if __name__ == "__main__":
        child = multiprocessing.get_context(sys.argv[2]).Process(target=veturboio.load, args=(sys.argv[1],))
        child.start()
        child.join()
        assert child.exitcode == 0, child.exitcode
    """
    run_python(code, sfcs.uri("model"), method, env=process_environment(sfcs.cluster))
    assert not abandoned_configurations()
    calls = sfcs.cluster.calls()
    assert calls[-1].function == "cfsDisconnect"
    assert sfcs.names() == ["model"]


def test_32_readers_and_16_writers_are_at_work_at_once(sfcs: Folder, client: Client):
    environment = {"FAKE_CLOUDFS_DELAY_MS": "200", "ELEMENTS": "20000000"}
    assert client.run("save", **environment) == []
    assert 8 < sfcs.cluster.exits()[-1].most_writes_at_once <= 16
    assert client.run("load", **environment) == []
    assert 16 < sfcs.cluster.exits()[-1].most_reads_at_once <= 32


@pytest.mark.parametrize("options", [{"num_thread": 1}, {"enable_fast_mode": False}])
def test_one_reader_where_the_user_wants_one(sfcs: Folder, options):
    torch.save(NEW, sfcs.path / "model.pt")
    code = "import sys, veturboio; [veturboio.load(file, **eval(sys.argv[1])) for file in sys.argv[2:]]"
    veturboio.save_file(NEW, sfcs.uri("model"))
    sfcs.cluster.forget_calls()
    environment = process_environment(sfcs.cluster, FAKE_CLOUDFS_DELAY_MS="5")
    run_python(code, options, sfcs.uri("model"), sfcs.uri("model.pt"), env=environment)
    assert sfcs.cluster.exits()[-1].most_reads_at_once == 1
