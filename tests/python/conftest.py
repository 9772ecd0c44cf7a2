"""Fixtures that the Python tests share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from sfcs_cluster import cluster, sfcs  # noqa: F401 (fixtures)

# The same examples on every run: a failure is there again when someone looks at it.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)  # xdist looks at the groups in this hook, too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (make test-python): a module is left to one of them, for what it builds and starts; and what uses
    SFCS, too, which comes first: some of these tests look for what clients on this machine have left, and all together they take
    nearly half of the time.
    """

    def uses_sfcs(item: pytest.Item) -> bool:
        return "cluster" in getattr(item, "fixturenames", ())

    for item in items:
        item.add_marker(pytest.mark.xdist_group("sfcs" if uses_sfcs(item) else item.path.stem))
    items.sort(key=uses_sfcs, reverse=True)


@pytest.fixture
def shm_path() -> Iterator[Path]:
    """A folder in shared memory, for files that are too large or too often written for a disk."""
    path = Path(tempfile.mkdtemp(prefix="veturboio-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)
