"""Lent access to SFCS: it expires, the name node moves, the service that lends it fails."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import torch
from fresh_process import environment, run_python
from sfcs_cluster import abandoned_configurations, clean_environment

import veturboio
from fakes.cloudfs import FakeCloudfs
from fakes.trusted_service import FakeTrustedService

KEY = bytes(range(16))  # the service lends access and knows the key
ENCRYPTED = {"VETURBOIO_USE_CIPHER": "1"}
pytestmark = pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")
TENSORS = {"a": torch.arange(6_000_000, dtype=torch.int32)}
# Loads again and again, until as much time has passed as the second argument says.
LOADS = """
import sys, time
import torch, veturboio
uri, seconds = sys.argv[1], float(sys.argv[2])
expected = torch.arange(6_000_000, dtype=torch.int32)
end = time.monotonic() + seconds
while True:
    assert torch.equal(veturboio.load(uri)["a"], expected)
    if time.monotonic() > end:
        break
"""


class Lender:
    """A trusted service that lends access for `seconds` at a time, each time another one, and the SFCS that it is for."""

    def __init__(self, cloudfs: FakeCloudfs, service: FakeTrustedService) -> None:
        self.cloudfs, self.service = cloudfs, service
        self.seconds = 3600.0
        self.told: float | None = None  # what the service says of it; the same if nothing else is said
        self.name_node = "name.node.1:65212"
        self._numbers = itertools.count()
        cloudfs.move_name_node(self.name_node)
        service.answers["sfcs-sts"] = self._lend

    def _lend(self) -> dict[str, Any]:
        number = next(self._numbers)
        now = datetime.now(timezone.utc)
        keys = (f"AK{number}", f"secret<&{number}>", f"token-{number}")
        self.cloudfs.accept(*keys, expires=time.time() + self.seconds)
        credentials = dict(zip(("AccessKeyId", "SecretAccessKey", "SessionToken"), keys, strict=True))
        times = {"CurrentTime": now.isoformat(), "ExpiredTime": (now + timedelta(seconds=self.told or self.seconds)).isoformat()}
        return {"Cred": credentials | times, "SfcsNameNodeAddress": self.name_node}

    def move_name_node(self, address: str) -> None:
        self.name_node = address
        self.cloudfs.move_name_node(address)

    def save(self, cipher: dict[str, str]) -> None:
        """The model that is loaded, encrypted or not, as a file of the stand-in."""
        key = {"key": KEY, "iv": KEY} if cipher else {}
        veturboio.save_file(TENSORS, self.cloudfs.files / "model", **key)

    @property
    def asked(self) -> int:
        return self.service.asked.count("sfcs-sts")

    def environment(self, **changes: str) -> dict[str, str]:
        return environment(**{**self.cloudfs.environment(lent=True), **self.service.environment(), **changes})

    def run(self, code: str, *arguments: object, **changes: str) -> str:
        return run_python(code, "sfcs://model", *arguments, env=self.environment(**changes)).stdout


@pytest.fixture
def lender(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lender]:
    clean_environment(monkeypatch)
    with FakeCloudfs() as cloudfs, FakeTrustedService(key=KEY, iv=KEY) as service:
        lender = Lender(cloudfs, service)
        lender.save({})
        yield lender
        assert not abandoned_configurations()


def test_access_is_lent_once_for_many_loads(lender: Lender):
    lender.run(LOADS, 0.5)
    assert lender.asked == 1
    assert lender.cloudfs.count("cfsBuilderConnect") == 1
    assert not lender.cloudfs.left_open()


@pytest.mark.parametrize("cipher", [{}, ENCRYPTED], ids=["plain", "encrypted"])
def test_access_that_expires_is_renewed_in_the_background(lender: Lender, cipher):
    lender.save(cipher)
    lender.seconds = 2.0
    # With one reader each of whose calls takes a quarter of a second a load takes several lives of the access, and reads fail in
    # the second and the third, so that the file is opened anew by then.
    lender.run(
        """
        import sys, torch, veturboio
        assert torch.equal(veturboio.load(sys.argv[1], num_thread=1)["a"], torch.arange(6_000_000, dtype=torch.int32))
        """,
        FAKE_CLOUDFS_DELAY_MS="200",
        **cipher,
        FAKE_CLOUDFS_FAIL="cfsPread:12:ECONNRESET;cfsPread:20:ECONNRESET",
        PYTHONWARNINGS="ignore",
    )
    assert lender.asked >= 3
    assert not lender.cloudfs.left_open()


def test_loads_go_on_for_many_lives_of_the_access(lender: Lender):
    lender.seconds = 1.0
    lender.run(LOADS, 4)
    assert lender.asked >= 4


@pytest.mark.parametrize("cipher", [{}, ENCRYPTED], ids=["plain", "encrypted"])
def test_a_name_node_that_moves_in_the_middle_of_a_load_is_followed(lender: Lender, cipher):
    lender.save(cipher)
    code = """
    import sys, time
    import torch, veturboio
    cipher = torch.ops.veturbo.start_find_cipher(sys.argv[1]).result()
    job = torch.ops.veturbo.start_load(sys.argv[1], num_threads=1, cipher=cipher)
    while job.progress()[0] < 5_000_000:
        time.sleep(0.01)
    print("moving", flush=True)
    sys.stdin.readline()
    assert torch.equal(job.result()["a"], torch.arange(6_000_000, dtype=torch.int32))
    print(*job.warnings())
    """
    changes = cipher | {"FAKE_CLOUDFS_DELAY_MS": "50", "FAKE_CLOUDFS_FAIL": "cfsPread:12:ECONNRESET"}
    command = [sys.executable, "-c", textwrap.dedent(code), "sfcs://model"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=lender.environment(**changes), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "moving\n"
        lender.move_name_node("name.node.2:65212")
        out, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert "Connection refused" in out
    assert lender.asked == 2


def test_a_lender_that_fails_for_a_while_is_asked_again(lender: Lender):
    lender.seconds = 2.0
    lender.service.misbehave(times=1, status=200, body=b"{}")
    out = lender.run(
        """
        import sys, veturboio
        try:
            veturboio.load(sys.argv[1])
        except OSError as error:
            print(error)
        veturboio.load(sys.argv[1])
        """
    )
    assert "no access to SFCS: neither SFCS_ACCESS_KEY, SFCS_SECRET_KEY and SFCS_NAMENODE_ENDPOINT_ADDRESS nor files of" in out
    assert "the trusted service: the answer has no" in out


def test_nobody_gives_access(lender: Lender):
    out = lender.run(
        """
        import errno, sys, veturboio
        try:
            veturboio.load(sys.argv[1])
        except OSError as error:
            assert error.errno == errno.ENOKEY
            print(error)
        """,
        DATAPIPE_SOCKET_PATH="/nowhere/socket",
    )
    assert "the trusted service: socket /nowhere/socket: No such file or directory: 'sfcs://model'" in out


def test_no_thread_is_left_when_nobody_uses_sfcs(lender: Lender):
    lender.run(
        """
        import os, sys, time
        import torch, veturboio
        threads = lambda: len(os.listdir("/proc/self/task"))
        veturboio.load(sys.argv[1])
        before = threads()
        reader = torch.classes.veturbo.FileReader(sys.argv[1], None)
        assert threads() == before + 1
        del reader
        assert threads() == before
        """
    )


def test_ctrl_c_ends_the_wait_for_a_lender(lender: Lender):
    lender.service.misbehave(times=1000, status=503)
    out = lender.run(
        """
        import os, signal, sys, threading, time
        import veturboio
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            veturboio.load(sys.argv[1])
        except KeyboardInterrupt:
            print("interrupted" if time.monotonic() - start < 5 else "too late")
        """,
        VETURBOIO_DATAPIPE_RETRY="100",
        VETURBOIO_DATAPIPE_RETRY_INTERVAL="1",
    )
    assert out == "interrupted\n"


@pytest.mark.parametrize("fault", ["moved", "refused", "cfsSetCredentials:*:EIO", "cfsBuilderConnect:*:EACCES"])
def test_secrets_are_in_no_error(lender: Lender, fault):
    changes = {"FAKE_CLOUDFS_FAIL": fault} if ":" in fault else {}
    if fault == "moved":
        lender.cloudfs.move_name_node("elsewhere:1")
    elif fault == "refused":
        lender.seconds = -1.0  # expired as soon as it is lent, by the stand-in's clock
        lender.told = 3600.0
    out = lender.run(
        """
        import sys, veturboio
        try:
            veturboio.load(sys.argv[1])
        except OSError as error:
            print(error)
        """,
        **changes,
    )
    assert "sfcs://model" in out
    for secret in ("secret", "token-"):
        assert secret not in out
