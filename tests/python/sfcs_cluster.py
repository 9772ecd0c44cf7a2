"""A stand-in for SFCS that all tests of a module share, and a folder in it for each test.

The client library is loaded once by a process, with the stand-in's settings as they are then: what a test wants to be different
(faults, delays, another library) it has in a process of its own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fresh_process import environment

from fakes.cloudfs import FakeCloudfs

_PREFIXES = ("VETURBOIO_", "SFCS_", "MLP_", "DATAPIPE_", "CREDENTIAL_PATH", "LIBCLOUDFS_")


class Folder:
    """A folder of the stand-in, from inside and from outside."""

    def __init__(self, cluster: FakeCloudfs, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.path = cluster.files / name
        self.path.mkdir()

    def uri(self, file: str) -> str:
        return f"sfcs://{self.name}/{file}"

    def names(self) -> list[str]:
        """All that is there, hidden files and folders included."""
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*"))


def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings, and no waiting for services that are not there."""
    for name in list(os.environ):
        if name.startswith(_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATAPIPE_SOCKET_PATH", "/nonexistent/datapipe.sock")
    monkeypatch.setenv("SFCS_METAINFO_PATH", "/nonexistent/SFCSConfiguration.json")
    monkeypatch.setenv("CREDENTIAL_PATH", "/nonexistent")
    monkeypatch.setenv("VETURBOIO_DATAPIPE_RETRY", "2")
    monkeypatch.setenv("VETURBOIO_DATAPIPE_RETRY_INTERVAL", "0.01")


@pytest.fixture(scope="session")
def cluster() -> Iterator[FakeCloudfs]:
    with FakeCloudfs() as server:
        yield server


@pytest.fixture
def sfcs(cluster: FakeCloudfs, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Folder:
    clean_environment(monkeypatch)
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FAKE_CLOUDFS_LOG")  # it would be gone when this process ends; those of their own have it
    return Folder(cluster, f"test-{len(list(Path(cluster.files).iterdir()))}")


def abandoned_configurations() -> set[Path]:
    """Folders with the secrets of clients that have ended: who lives has his locked."""
    abandoned = set()
    for folder in Path("/dev/shm").glob("veturboio-sfcs-*"):
        with suppress(OSError):  # gone, or somebody else's
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                abandoned.add(folder)
            finally:
                os.close(descriptor)
    return abandoned


def process_environment(cluster: FakeCloudfs, **changes: str) -> dict[str, str]:
    """For a process of its own."""
    return environment(**cluster.environment(**changes))
