"""SFCS over a folder of this machine: a stand-in for its client library (tests/fakes/libcloudfs), and what it is to let in.

with FakeCloudfs() as sfcs:
    environment.update(sfcs.environment(FAKE_CLOUDFS_FAIL="cfsPread:3:ETIMEDOUT"))
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from fakes.build import make

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "fakes" / "libcloudfs"
BUILD = ROOT / "build" / "fakes" / "cloudfs"
ACCESS_KEY = "AKSFCS0001"
SECRET_KEY = "own/sfcs&secret+key=="
NAME_NODE = "first.name.node.example:9000"
SETTINGS = {
    "SFCS_FSNAME": "cloud-cache",
    "SFCS_REGION": "cn-somewhere",
    "SFCS_AUTHENTICATION_SERVICE_NAME": "cloud-cache-service",
    "SFCS_NS_ID": "18014398509481988",
    "SFCS_UFS_PATH": "tos://bucket.example/",
    "SFCS_MULTI_NIC_WHITELIST": "eth0",
    "SFCS_NETWORK_SEGMENT": "192.0.2.0/24",
}


@functools.cache
def _build() -> None:
    make("the stand-in for libcloudfs.so", SOURCES, OUT=BUILD)


@dataclass(frozen=True)
class Call:
    """A line of the log; its form is told in tests/fakes/libcloudfs/log.h."""

    function: str
    paths: tuple[str, ...]
    offset: int | None
    size: int | None
    result: int  # of what returns a pointer: the number of the new object, or 0
    error: str | None  # the name of the errno
    process: int
    thread: int

    @property
    def path(self) -> str:
        return self.paths[0]


@dataclass(frozen=True)
class LeftOpen:
    """What a process had not let go of when it ended."""

    handles: int = 0
    connections: int = 0
    builders: int = 0
    infos: int = 0

    def __bool__(self) -> bool:
        return self != LeftOpen()


@dataclass(frozen=True)
class Exit:
    """A process that has ended by itself."""

    left_open: LeftOpen
    most_reads_at_once: int
    most_writes_at_once: int
    process: int


def _parse_call(line: str) -> Call:
    function, paths, offset, size, result, error, process, thread = line.split(" ")

    def number(text: str) -> int | None:
        return None if text == "-" else int(text)

    return Call(
        function=function,
        paths=() if paths == "-" else tuple(unquote(path) for path in paths.split(",")),
        offset=number(offset),
        size=number(size),
        result=int(result),
        error=None if error == "-" else error,
        process=int(process),
        thread=int(thread),
    )


def _parse_exit(line: str) -> Exit:
    values = {name: int(value) for name, value in (part.split("=") for part in line.split(" ")[1:])}
    left_open = LeftOpen(**{field.name: values.pop(field.name) for field in fields(LeftOpen)})
    return Exit(left_open=left_open, **values)


class FakeCloudfs:
    def __enter__(self) -> FakeCloudfs:
        _build()
        self.library = BUILD / "libcloudfs.so"
        self.old_library = BUILD / "old" / "libcloudfs.so"  # without cfsSetCredentials
        # The name says which process it is of: who finds one left behind can tell whether it still runs.
        self._root = Path(tempfile.mkdtemp(prefix=f"fake-cloudfs-{os.getpid()}-", dir="/dev/shm"))
        self._log = self._root / "log"
        self.files = self._root / "files"
        self.files.mkdir()
        self._callers: dict[tuple[str, str, str | None], float | None] = {}
        self.accept(ACCESS_KEY, SECRET_KEY)
        self.move_name_node(NAME_NODE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self._root)

    def environment(self, *, lent: bool = False, **extra: str) -> dict[str, str]:
        """What a client needs. `lent`: without the credentials and the name node, for who gets them from elsewhere."""
        own = {
            "SFCS_ACCESS_KEY": ACCESS_KEY,
            "SFCS_SECRET_KEY": SECRET_KEY,
            "SFCS_NAMENODE_ENDPOINT_ADDRESS": NAME_NODE,
        }
        return {
            "VETURBOIO_LIBCFS": str(self.library),
            "FAKE_CLOUDFS_ROOT": str(self._root),
            "FAKE_CLOUDFS_LOG": str(self._log),
            **SETTINGS,
            **({} if lent else own),
            **extra,
        }

    def accept(self, access_key: str, secret_key: str, token: str | None = None, expires: float | None = None) -> None:
        """From now on; `expires`: in seconds since 1970. Again for the same one: only the expiry changes."""
        self._callers[access_key, secret_key, token] = expires
        self._write_callers()

    def refuse(self, access_key: str) -> None:
        """Takes back what was accepted."""
        self._callers = {caller: expires for caller, expires in self._callers.items() if caller[0] != access_key}
        self._write_callers()

    def move_name_node(self, address: str) -> None:
        self._replace("name_node", f"{address}\n")

    def calls(self, function: str | None = None) -> list[Call]:
        """In the order in which they ended."""
        calls = [_parse_call(line) for line in self._lines() if not line.startswith("exit ")]
        return [call for call in calls if function in (None, call.function)]

    def count(self, function: str) -> int:
        return len(self.calls(function))

    def exits(self) -> list[Exit]:
        return [_parse_exit(line) for line in self._lines() if line.startswith("exit ")]

    def left_open(self) -> LeftOpen:
        """By the process that ended last."""
        return self.exits()[-1].left_open

    def forget_calls(self) -> None:
        self._log.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def _write_callers(self) -> None:
        lines = [
            f"{access_key} {secret_key} {token or '-'} {'-' if expires is None else expires}\n"
            for (access_key, secret_key, token), expires in self._callers.items()
        ]
        self._replace("callers", "".join(lines))

    def _replace(self, name: str, text: str) -> None:
        """In one step: clients read it at any time."""
        new = self._root / f"{name}.new"
        new.write_text(text)
        new.replace(self._root / name)
