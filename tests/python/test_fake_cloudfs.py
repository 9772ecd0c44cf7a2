"""The stand-in for the client library of SFCS: what it does, and that it refuses what it is there to refuse.

Each client runs in a process of its own, which some of them do not survive. cloudfs_client.py has what they all begin with.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import cloudfs as fake_cloudfs
from fakes.cloudfs import FakeCloudfs, LeftOpen

HERE = Path(__file__).parent
BLOCK = 16
CONFIGURATION = {
    "dfs.default.uri": "cfs://cloud-cache.sfcs-cn-somewhere.ivolces.com",
    "dfs.authentication.service.name": "cloud-cache-service",
    "cfs.filesystem.ns-id": "18014398509481988",
    "cfs.filesystem.ufs-path": "tos://bucket.example/",
    "cfs.client.multi-nic.whitelist": "eth0",
    "cfs.client.network.segment": "192.0.2.0/24",
    "cfs.metrics.server.host": "metricserver-cn-somewhere.cfs.ivolces.com",
    "dfs.client.log.severity": "INFO",
    "cfs.filesystem.resolve.addr.by.dns": "false",
    "cfs.filesystem.task-id": "sfcs",
    "cfs.filesystem.sync-interval": "-1",
    "cfs.access.key": fake_cloudfs.ACCESS_KEY,
    "cfs.secret.key": fake_cloudfs.SECRET_KEY.replace("&", "&amp;"),
    "cfs.namenode.endpoint.address.cloud-cache": fake_cloudfs.NAME_NODE,
    "dfs.default.blocksize": str(BLOCK),
    "cfs.filesystem.fs-mode": "ACC",
    "cfs.metrics.emitters": "metric_server;local_prometheus",
    "cfs.client.metadata-cache.enable": "false",
    "rpc.client.channel.pool.size": "32",
    "dfs.default.replica": "2",
    "cfs.client.multi-nic.enabled": "true",
    "fs.datanode.router.ignore-main-nic": "true",
    "cfs.datanode.router.shuffle": "true",
}
OPTIONAL = {"dfs.default.blocksize"}


class Client:
    """Starts clients: Python that goes on from the names of cloudfs_client.py."""

    def __init__(self, sfcs: FakeCloudfs, folder: Path) -> None:
        self.sfcs, self.folder = sfcs, folder
        self.configuration = folder / "client.xml"
        self._processes: list[subprocess.Popen[str]] = []
        self.write(CONFIGURATION)

    def write(self, properties: dict[str, str]) -> None:
        lines = [f"<property><name>{name}</name><value>{value}</value></property>" for name, value in properties.items()]
        self.write_text('<?xml version="1.0"?>\n<configuration>\n' + "\n".join(lines) + "\n</configuration>\n")

    def write_text(self, text: str) -> None:
        self.configuration.touch(mode=0o600)
        self.configuration.write_text(text)

    def start(self, code: str, **environment: str) -> subprocess.Popen[str]:
        variables = self.sfcs.environment(LIBCLOUDFS_CONF=str(self.configuration), PYTHONPATH=str(HERE))
        command = [sys.executable, "-S", "-c", "from cloudfs_client import *\n" + textwrap.dedent(code)]
        pipe = subprocess.PIPE
        variables |= environment
        process = subprocess.Popen(command, env=variables, cwd="/usr", stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            with process:
                process.kill()

    def run(self, code: str, **environment: str) -> str:
        process = self.start(code, **environment)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return output.strip()

    def aborts(self, code: str, **environment: str) -> str:
        process = self.start(code, **environment)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGABRT, errors
        return errors.strip()


@pytest.fixture
def sfcs() -> Iterator[FakeCloudfs]:
    with FakeCloudfs() as running:
        yield running


@pytest.fixture
def client(sfcs: FakeCloudfs, tmp_path: Path) -> Iterator[Client]:
    client = Client(sfcs, tmp_path)
    yield client
    client.end()


REFUSED = "print(refused(connect))"


def test_file_is_written_read_listed_and_deleted(sfcs: FakeCloudfs, client: Client) -> None:
    client.run("""
        fs = connect()
        assert cfs.cfsGetDefaultBlockSize(fs) == 16
        assert cfs.cfsCreateDirectory(fs, b"/a/b") == 0 and cfs.cfsCreateDirectory(fs, b"/a/b") == 0
        write(fs, b"/a/b/file", b"hello", b" world")
        assert read(fs, b"/a/b/file") == b"hello world"
        assert size_of(fs, b"/a/b/file") == 11
        write(fs, b"/a/b/file", b"!", append=True)
        assert read(fs, b"/a/b/file") == b"hello world!"
        write(fs, b"/a/b/file", b"new")
        assert read(fs, b"/a/b/file") == b"new"
        assert refused(cfs.cfsDelete, fs, b"/a", 0) == "ENOTEMPTY cfsDelete: /a: Directory not empty"
        assert cfs.cfsDelete(fs, b"/a", 1) == 0
        assert refused(size_of, fs, b"/a").startswith("ENOENT")
        assert refused(cfs.cfsDelete, fs, b"/a", 1).startswith("ENOENT")
        assert cfs.cfsDisconnect(fs) == 0
    """)
    assert sfcs.left_open() == LeftOpen()
    assert [(call.path, call.offset, call.size, call.result) for call in sfcs.calls("cfsWrite")] == [
        ("/a/b/file", 0, 5, 5),
        ("/a/b/file", 5, 6, 6),
        ("/a/b/file", 11, 1, 1),
        ("/a/b/file", 0, 3, 3),
    ]
    assert sfcs.calls("cfsDelete")[0].error == "ENOTEMPTY"
    assert list(sfcs.files.iterdir()) == []


def test_every_property_is_looked_at(client: Client) -> None:
    code = """
        import os
        for path in sys.stdin.read().split():
            os.environ["LIBCLOUDFS_CONF"] = path
            print(refused(connect))
    """
    cases = []
    for name in CONFIGURATION:
        others = {other: value for other, value in CONFIGURATION.items() if other != name}
        if name not in OPTIONAL:
            cases.append((others, "EINVAL"))
        cases.append(({**CONFIGURATION, name: ""}, "EINVAL"))
        fixed = list(CONFIGURATION).index(name) >= list(CONFIGURATION).index("cfs.filesystem.fs-mode")
        if fixed:
            cases.append(({**CONFIGURATION, name: "other"}, "EINVAL"))
    cases += [
        ({**CONFIGURATION, "cfs.something.else": "1"}, "EINVAL"),
        ({**CONFIGURATION, "cfs.security.token": ""}, "EINVAL"),
        ({**CONFIGURATION, "cfs.security.token": "unknown"}, "EACCES"),
        ({**CONFIGURATION, "cfs.access.key": "unknown"}, "EACCES"),
        ({**CONFIGURATION, "cfs.secret.key": "unknown"}, "EACCES"),
        ({**CONFIGURATION, "cfs.namenode.endpoint.address.cloud-cache": "other:1"}, "ECONNREFUSED"),
        ({**CONFIGURATION, "dfs.default.uri": "cfs://cloud-cache.sfcs-cn-somewhere.example.com"}, "EINVAL"),
        ({**CONFIGURATION, "dfs.default.uri": "cfs://cloud-cache.sfcs-elsewhere.ivolces.com"}, "EINVAL"),
        ({**CONFIGURATION, "dfs.default.uri": "cfs://other.sfcs-cn-somewhere.ivolces.com"}, "EINVAL"),
        (CONFIGURATION, "accepted"),
    ]
    paths = []
    for number, (properties, _) in enumerate(cases):
        client.configuration = client.folder / str(number)
        client.write(properties)
        paths.append(str(client.configuration))
    process = client.start(code)
    output, errors = process.communicate(" ".join(paths), timeout=60)
    assert [line.split()[0] for line in output.splitlines()] == [expected for _, expected in cases], errors


def test_malformed_configuration_is_refused(client: Client) -> None:
    good = client.configuration.read_text()
    for bad in [
        "",
        good[:-5],
        good + "x",
        good.replace("&amp;", "&"),
        good.replace("</value>", "", 1),
        good.replace("tos:", "<b/>"),
    ]:
        client.write_text(bad)
        assert client.run(REFUSED).startswith("EINVAL cfsBuilderConnect: "), bad
    client.write({**CONFIGURATION})
    client.write_text(good.replace("</configuration>", "<property><name>dfs.default.replica</name><value>2</value></property>$&"))
    assert "there twice" in client.run(REFUSED)


def test_configuration_must_be_a_private_file_elsewhere(client: Client) -> None:
    client.configuration.chmod(0o640)
    assert "its mode is not 0600" in client.run(REFUSED)
    client.configuration.chmod(0o600)
    assert client.run(REFUSED) == "accepted"
    link = client.folder / "link"
    link.symlink_to(client.configuration)
    assert "not a regular file" in client.run(REFUSED, LIBCLOUDFS_CONF=str(link))
    assert client.run(REFUSED, LIBCLOUDFS_CONF="/nowhere").startswith("ENOENT")
    inside = f"import os; os.chdir({str(client.folder)!r}); {REFUSED}"
    assert "below the working directory" in client.run(inside)
    assert "is not absolute" in client.run(f"os.environ['LIBCLOUDFS_CONF'] = 'client.xml'; {inside}")
    assert "is not set" in client.run(f"del os.environ['LIBCLOUDFS_CONF']; {REFUSED}")
    assert "only the name node" in client.run("print(refused(connect, name_node=b'other:1'))")


def test_credentials_are_checked_when_connecting_and_by_path_but_not_on_handles(sfcs: FakeCloudfs, client: Client) -> None:
    sfcs.accept("AKLENT", "secret", "token", expires=time.time() + 1000)
    (sfcs.files / "file").write_bytes(b"content")
    process = client.start("""
        assert refused(connect, (b"AKLENT", b"secret", None)).startswith("EACCES cfsBuilderConnect: ")
        fs = connect((b"AKLENT", b"secret", b"token"))
        handle = cfs.cfsOpenFile(fs, b"/file", 0, 0, 0, 0)
        print("open", flush=True)
        sys.stdin.readline()
        assert refused(size_of, fs, b"/file") == "EACCES cfsGetPathInfo: /file: credentials have expired"
        assert refused(connect, (b"AKLENT", b"secret", b"token")).startswith("EACCES")
        assert pread(fs, handle, 0, 7) == b"content"
        print("expired", flush=True)
        sys.stdin.readline()
        moved = "ECONNREFUSED cfsGetPathInfo: /file: no name node at first.name.node.example:9000"
        assert refused(size_of, fs, b"/file") == moved
        assert pread(fs, handle, 0, 7) == b"content"
        cfs.cfsCloseFile(fs, handle)
        cfs.cfsDisconnect(fs)
        print("done")
    """)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "open\n"
    sfcs.accept("AKLENT", "secret", "token", expires=time.time() - 1)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "expired\n"
    sfcs.move_name_node("second:1")
    output, errors = process.communicate("\n", timeout=60)
    assert output == "done\n", errors


def test_old_library_cannot_be_given_credentials(sfcs: FakeCloudfs, client: Client) -> None:
    client.run("assert not hasattr(cfs, 'cfsSetCredentials'); connect()", VETURBOIO_LIBCFS=str(sfcs.old_library))
    assert sfcs.left_open() == LeftOpen(connections=1)


def test_file_has_one_writer_in_all_processes(sfcs: FakeCloudfs, client: Client) -> None:
    (sfcs.files / "part").write_bytes(bytes(BLOCK))
    busy = """
        fs = connect()
        assert refused(create, fs, b"/file") == "EBUSY cfsOpenFileAcc: /file: the file is being written"
        assert refused(create, fs, b"/file", append=True).startswith("EBUSY")
        assert refused(cfs.cfsRename2, fs, b"/file", b"/other").startswith("EBUSY")
        assert refused(cfs.cfsRename2, fs, b"/part", b"/file").startswith("EBUSY")
        assert refused(concat, fs, b"/file", b"/part").startswith("EBUSY")
        assert refused(concat, fs, b"/part", b"/file").startswith("EBUSY")
        assert read(fs, b"/file") == b"x"
    """
    writer = client.start("""
        fs = connect()
        handle = create(fs, b"/file")
        put(fs, handle, b"x")
        print("writing", flush=True)
        sys.stdin.readline()
    """)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    client.run(busy)
    writer.kill()
    writer.communicate()
    client.run("fs = connect(); write(fs, b'/file', b'y', append=True); assert read(fs, b'/file') == b'xy'")
    client.run(
        "fs = connect(); handle = create(fs, b'/file'); put(fs, handle, b'x')"
        + textwrap.dedent(busy)
        + "assert cfs.cfsDelete(fs, b'/file', 0) == 0"
    )


def test_open_refuses_what_is_not_asked_for_rightly(sfcs: FakeCloudfs, client: Client) -> None:
    client.run("""
        O_ASYNC, O_APPEND = 0o20000, os.O_APPEND
        fs = connect()
        for arguments in [(1, 0o644, 0, 0), (1 | O_ASYNC, 0o600, 0, 0), (1 | O_ASYNC, 0o644, 0, 1), (2 | O_ASYNC, 0o644, 0, 0),
                          (1 | O_ASYNC | O_APPEND, 0o644, 0, 0)]:
            assert refused(cfs.cfsOpenFileAcc, fs, b"/file", *arguments).startswith("EINVAL"), arguments
        assert refused(cfs.cfsOpenFile, fs, b"/file", 2, 0, 0, 0).startswith("EINVAL")
        assert refused(read, fs, b"/file").startswith("ENOENT")
        assert refused(create, fs, b"/file", append=True).startswith("ENOENT")
        assert refused(create, fs, b"/none/file").startswith("ENOENT")
        assert refused(create, fs, b"/").startswith("EISDIR") and refused(read, fs, b"/").startswith("EISDIR")
        for path in [b"file", b"", b"//file", b"/a/../file", b"/file/"]:
            assert refused(create, fs, path).startswith("EINVAL"), path
        handle = create(fs, b"/file")
        assert refused(pread, fs, handle, 0, 1).startswith("EBADF")
        reading = cfs.cfsOpenFile(fs, b"/file", 0, 0, 0, 0)
        assert refused(put, fs, reading, b"x").startswith("EBADF")
        assert refused(pread, fs, reading, -1, 1).startswith("EINVAL")
        assert pread(fs, reading, 0, 1) == b""
        assert refused(cfs.cfsCreateDirectory, fs, b"/file/folder").startswith("ENOTDIR")
        assert refused(cfs.cfsCreateDirectory, fs, b"/file").startswith(("EEXIST", "ENOTDIR"))
    """)
    assert sfcs.left_open() == LeftOpen(handles=2, connections=1)


def test_rename_replaces_and_readers_keep_what_they_opened(sfcs: FakeCloudfs, client: Client) -> None:
    client.run("""
        fs = connect()
        write(fs, b"/old", b"old")
        write(fs, b"/new", b"new")
        reading = cfs.cfsOpenFile(fs, b"/old", 0, 0, 0, 0)
        assert cfs.cfsRename2(fs, b"/new", b"/old") == 0
        assert pread(fs, reading, 0, 9) == b"old" and read(fs, b"/old") == b"new"
        assert refused(cfs.cfsRename2, fs, b"/new", b"/old").startswith("ENOENT")
        assert refused(cfs.cfsRename2, fs, b"/old", b"/none/new").startswith("ENOENT")
    """)
    assert sfcs.calls("cfsRename2")[0].paths == ("/new", "/old")


def test_concat_takes_whole_blocks(sfcs: FakeCloudfs, client: Client) -> None:
    for name, size in {"target": BLOCK, "whole": 2 * BLOCK, "odd": BLOCK + 1, "empty": 0}.items():
        (sfcs.files / name).write_bytes(name[:1].encode() * size)
    client.run("""
        fs = connect()
        for paths in [(b"/odd", b"/whole"), (b"/empty", b"/whole"), (b"/target", b"/odd", b"/whole"),
                      (b"/target", b"/empty", b"/odd"), (b"/target", b"/whole", b"/whole"),
                      (b"/target", b"/target"), (b"/target",)]:
            assert refused(concat, fs, *paths).startswith("EINVAL"), paths
        assert refused(concat, fs, b"/target", b"/none").startswith("ENOENT")
        assert refused(concat, fs, b"/none", b"/whole").startswith("ENOENT")
        concat(fs, b"/target", b"/whole", b"/odd")
    """)
    assert (sfcs.files / "target").read_bytes() == b"t" * BLOCK + b"w" * 2 * BLOCK + b"o" * (BLOCK + 1)
    assert sorted(path.name for path in sfcs.files.iterdir()) == ["empty", "target"]


def test_faults_come_when_they_are_told_to(sfcs: FakeCloudfs, client: Client) -> None:
    faults = (
        "cfsPread:2:ETIMEDOUT;cfsWrite:1:EIO:after;cfsWrite:2+:ECONNRESET;cfsOpenFile:3:EACCES:after;cfsDelete:*:EAGAIN;"
        "cfsRename2:1:EIO:after;cfsCloseFile:1:ENOSPC;cfsBuilderConnect:1:ETIMEDOUT:after;cfsGetPathInfo:1:EINTR:after"
    )
    (sfcs.files / "kept").write_bytes(b"kept")
    client.run(
        """
        assert refused(connect) == "ETIMEDOUT cfsBuilderConnect: %s: Connection timed out" % os.environ["LIBCLOUDFS_CONF"]
        fs = connect()
        reading = cfs.cfsOpenFile(fs, b"/kept", 0, 0, 0, 0)
        assert [refused(pread, fs, reading, 0, 4).split()[0] for _ in range(3)] == ["accepted", "ETIMEDOUT", "accepted"]
        handle = create(fs, b"/file")
        assert refused(put, fs, handle, b"1234").startswith("EIO") and refused(put, fs, handle, b"5678").startswith("ECONNRESET")
        assert read(fs, b"/file", close=False) == b"12"
        assert refused(cfs.cfsCloseFile, fs, handle).startswith("ENOSPC")
        assert refused(size_of, fs, b"/file").startswith("EINTR") and size_of(fs, b"/file") == 0
        assert refused(cfs.cfsOpenFile, fs, b"/kept", 0, 0, 0, 0).startswith("EACCES")
        assert refused(cfs.cfsDelete, fs, b"/kept", 0) == "EAGAIN cfsDelete: /kept: Resource temporarily unavailable"
        assert refused(cfs.cfsRename2, fs, b"/kept", b"/moved").startswith("EIO")
    """,
        FAKE_CLOUDFS_FAIL=faults,
    )
    assert sfcs.left_open() == LeftOpen(handles=2, connections=1)
    assert (sfcs.files / "moved").read_bytes() == b"kept"
    for bad in ["cfsNothing:1:EIO", "cfsWrite:0:EIO", "cfsWrite:1:ENOTHING", "cfsWrite:1:EIO:before"]:
        assert bad in client.aborts("", FAKE_CLOUDFS_FAIL=bad)


def test_transfers_are_short_when_told_to(sfcs: FakeCloudfs, client: Client) -> None:
    client.run(
        "fs = connect(); write(fs, b'/file', bytes(range(250))); assert read(fs, b'/file') == bytes(range(250))",
        FAKE_CLOUDFS_SHORT="7",
    )
    results = [call.result for name in ("cfsPread", "cfsWrite") for call in sfcs.calls(name)]
    assert len(results) > 5
    assert results.count(0) == 1  # the end of the file


def test_calls_take_their_time_and_overlaps_are_counted(sfcs: FakeCloudfs, client: Client) -> None:
    (sfcs.files / "file").write_bytes(bytes(1 << 20))
    output = client.run(
        """
        import threading, time
        fs = connect()
        start = time.monotonic()
        size_of(fs, b"/file")
        print(time.monotonic() - start)
        handles = [cfs.cfsOpenFile(fs, b"/file", 0, 0, 0, 0) for _ in range(3)]
        start = time.monotonic()
        threads = [threading.Thread(target=pread, args=(fs, handle, 0, 1 << 20)) for handle in handles]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        print(time.monotonic() - start)
    """,
        FAKE_CLOUDFS_DELAY_MS="50",
        FAKE_CLOUDFS_MIB_PER_S="5",
    )
    path_took, read_took = map(float, output.split())
    assert path_took >= 0.05
    assert 0.25 <= read_took < 0.5  # one after the other would take 0.75
    assert [(end.most_reads_at_once, end.most_writes_at_once) for end in sfcs.exits()] == [(3, 0)]


OPENED = "fs = connect(); write(fs, b'/file', b'x'); handle = cfs.cfsOpenFile(fs, b'/file', 0, 0, 0, 0);"
# Over and over: on a busy machine the first call may be done before the second thread has started.
TWICE = (
    "import threading; "
    "threads = [threading.Thread(target=lambda: [{} for _ in range(200)]) for _ in range(2)]; "
    "[t.start() for t in threads]"
)
FORKED = "sys.exit(os.waitpid(child, 0)[1] and os.abort()) if (child := os.fork()) else "


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("cfs.cfsCloseFile(fs, handle); cfs.cfsCloseFile(fs, handle)", "cfsCloseFile with a closed handle, of /file"),
        ("cfs.cfsPread(fs, 12345, 0, None, 0)", "cfsPread with an unknown handle"),
        ("cfs.cfsPread(connect(), handle, 0, None, 0)", "cfsPread with a handle of another connection, of /file"),
        ("cfs.cfsDisconnect(fs)", "cfsDisconnect while 1 handles of the connection are open"),
        ("cfs.cfsCloseFile(fs, handle); cfs.cfsDisconnect(fs); size_of(fs, b'/')", "cfsGetPathInfo with a closed connection"),
        ("size_of(handle, b'/')", "cfsGetPathInfo with an unknown connection"),
        ("cfs.cfsFreeFileInfo(handle, 1)", "cfsFreeFileInfo with unknown file information"),
        (TWICE.format("pread(fs, handle, 0, 1)"), "cfsPread with a handle that another thread is using, of /file"),
        (TWICE.format("connect()"), "cfsBuilderConnect while another thread is in it: it reads the environment"),
        (
            "builder = new_builder(); cfs.cfsBuilderConnect(builder, None); cfs.cfsFreeBuilder(builder)",
            "cfsFreeBuilder with a builder",
        ),
        (
            "builder = new_builder(); cfs.cfsFreeBuilder(builder); cfs.cfsBuilderConnect(builder, None)",
            "cfsBuilderConnect with a",
        ),
        ("cfs.cfsFreeBuilder(fs)", "cfsFreeBuilder with an unknown builder"),
        (FORKED + "size_of(fs, b'/')", "cfsGetPathInfo with what another process made, before it forked this one"),
        (FORKED + "pread(fs, handle, 0, 1)", "cfsPread with what another process made, before it forked this one"),
    ],
)
def test_misuse_ends_the_process(client: Client, code: str, message: str) -> None:
    assert f"libcloudfs stand-in: {message}" in client.aborts(OPENED + code, FAKE_CLOUDFS_DELAY_MS="20")


def test_child_that_leaves_the_library_alone_holds_no_lock(sfcs: FakeCloudfs, client: Client) -> None:
    client.run("""
        fs = connect()
        handle = create(fs, b"/file")
        import signal
        child = os.fork()
        if child == 0:
            [os.close(fd) for fd in range(3)]  # pipes of the test
            signal.alarm(10)  # should the parent fail before it ends this one
            signal.pause()
        cfs.cfsCloseFile(fs, handle)
        write(fs, b"/file", b"x")
        os.kill(child, 9)
        cfs.cfsDisconnect(fs)
    """)
    assert not sfcs.left_open()
