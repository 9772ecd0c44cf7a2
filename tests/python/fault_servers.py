"""Loads and saves that ask servers for their key which misbehave, under scenarios drawn by a seed."""

from __future__ import annotations

import base64
import collections
import json
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_far import COUNT, Client, Outcome
from fault_operations import OLD, Site, ViolationError
from fresh_process import ForkedPython

from fakes import kms as fake_kms
from fakes import trusted_service as fake_service
from fakes.kms import FakeKms, error_body
from fakes.trusted_service import FakeTrustedService

KEY = b"a key of service"
# Those that search for a key where none is given.
LOADS = (
    *("load", "load, slow mode", "load, direct", "load, names", "load, in place", "load, torch file", "slice", "stream"),
    *("load_async", "load_to_shmem"),
)
SAVES = ("save_file", "save_model", "save_pt")
# From where the key comes, and by what name an error calls it.
SOURCES = {"service": "the trusted service", "KMS": "the KMS", "KMS by way of the service": "the KMS"}
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
BUSY = (429, 500, 502, 503)
REFUSED = (400, 401, 403, 404)


@dataclass(frozen=True)
class Scenario:
    operation: str
    source: str
    kind: str
    how: dict[str, Any]  # a Misbehaviour, of the server that is asked first if nothing else is said
    times: int  # how many requests meet it; more than there are attempts: all
    settings: tuple[tuple[str, str], ...] = ()  # variables that are different

    def __str__(self) -> str:
        return f"{self.operation}, key from {self.source}: {self.kind}, {self.times} times {self.how} {dict(self.settings)}"[:300]

    @property
    def passes(self) -> bool | None:
        """Whether a further attempt comes through; None: there is no telling."""
        if self.kind in ("slow", "nothing"):
            return True
        if self.kind in ("nobody listens", "redirect", "garbage", "huge", "refused", "another certificate", "another host"):
            return False
        if self.kind == "cut" and self.how["cut"] < 200:
            return None  # a part of the head may look like something else than HTTP
        return self.times <= 2


@contextmanager
def campaign() -> Iterator[Campaign]:
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="veturboio-faults-")))
        yield Campaign(root, Servers(stack), stack.enter_context(closing(ForkedPython())))


class Servers:
    """The KMS, one that is not it, and a trusted service for each purpose."""

    def __init__(self, stack: ExitStack) -> None:
        self.kms = stack.enter_context(FakeKms(session_token="own-session-token"))
        self.other = stack.enter_context(FakeKms(certified="DNS:other.example"))
        self._key_service = stack.enter_context(FakeTrustedService(key=KEY, tasks=("encrypt-key",)))
        self._kms_service = stack.enter_context(FakeTrustedService(kms=self.kms, tasks=("kms-sts", "top")))
        self._folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="veturboio-faults-"))

    def variables(self, source: str) -> dict[str, str]:
        variables = {"DATAPIPE_SOCKET_PATH": "/nowhere/socket", "VETURBOIO_USE_CIPHER": "1"}
        variables |= {"VETURBOIO_DATAPIPE_RETRY": "2", "VETURBOIO_DATAPIPE_RETRY_INTERVAL": "0.01"}
        if source == "service":
            return {**variables, **self._key_service.environment()}
        variables["VETURBOIO_CIPHER_HEADER"] = "1"
        if source == "KMS":
            return {**variables, **self.kms.environment()}
        return {**variables, **self.kms.environment(credentials=False), **self._kms_service.environment()}

    def nobody(self, source: str) -> dict[str, str]:
        """In the place of the server something that nobody listens on."""
        if source == "KMS":
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                return {"VETURBOIO_KMS_HOST": f"127.0.0.1:{closed.getsockname()[1]}"}
        path = Path(self._folder) / "dead"
        if not path.exists():
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        return {"DATAPIPE_SOCKET_PATH": str(path)}

    def misbehave(self, source: str, how: dict[str, Any]) -> None:
        """The server that is asked first does."""
        {"service": self._key_service, "KMS": self.kms, "KMS by way of the service": self._kms_service}[source].misbehave(**how)

    def behave(self) -> None:
        for server in (self.kms, self._key_service, self._kms_service):
            server.behave()

    def check_no_secret_in(self, text: str) -> None:
        secrets = [fake_kms.SECRET_KEY, "own-session-token", fake_service.SECRET_KEY, fake_service.SESSION_TOKEN]
        secrets += [KEY.decode(), base64.b64encode(KEY).decode()]
        for request in self.kms.requests:
            body = json.loads(request.body)
            if "Plaintext" in body:
                secrets.append(body["Plaintext"])
        if found := [secret for secret in secrets if secret in text]:
            raise ViolationError(f"{len(found)} secrets are told: {text}")


class Campaign:
    def __init__(self, root: Path, servers: Servers, python: ForkedPython) -> None:
        self._servers = servers
        self._sites = {source: root / SOURCES[source] for source in SOURCES}
        self._clients = {source: Client(python, site, source="encrypted") for source, site in self._sites.items()}
        self.ends: collections.Counter[tuple[str, str, str]] = collections.Counter()
        for source in SOURCES:
            self._encrypt(source)

    def scenario(self, seed: int) -> Scenario:
        draw = random.Random(seed)
        operation, source = draw.choice((*LOADS, *SAVES)), draw.choice(list(SOURCES))
        # The KMS is asked five times with pauses that take four seconds together.
        times = draw.choice((1, 2)) if source != "service" and draw.random() < 0.9 else draw.choice((1, 2, 99))
        kinds = ["cut", "cut", "reset", "garbage", "huge", "refused", "busy", "slow", "redirect", "nobody listens", "nothing"]
        kinds += ["another certificate", "another host"] if source == "KMS" else []
        kind = draw.choice(kinds)
        how: dict[str, Any] = {}
        settings: dict[str, str] = {}
        if kind == "cut":
            how = {"cut": draw.choice((0, draw.randrange(200), draw.randrange(200, 230)))}
        elif kind == "reset":
            how = {"cut": draw.randrange(230), "reset": True}
            kind = "cut"
        elif kind == "garbage":
            noise = draw.randbytes(draw.choice((0, 10, 1000)))
            how = draw.choice(({"raw": b"\0" + noise}, {"status": 200, "body": noise}, {"status": 200, "body": b"[" * 9999}))
        elif kind == "huge":
            how = {"status": 200, "body": b'{"Key": "' + b"x" * draw.choice((1 << 20, 5 << 20)) + b'"}'}
        elif kind in ("refused", "busy"):
            how = {"status": draw.choice(BUSY if kind == "busy" else REFUSED), "body": error_body("Busy", "come back later")}
            kind = kind if source == "KMS" else "busy"  # the service is asked again whatever it answers but 200
        elif kind == "redirect":
            to = draw.choice((f"https://{self._servers.kms.host}/", "http://127.0.0.1:1/", "file:///etc/hostname"))
            how = {"raw": REDIRECT % to.encode()}
            kind = kind if source == "KMS" else "busy"
        elif kind == "slow":
            how = {"delay": draw.choice((0.05, 0.3)), "answers": False}
        elif kind == "nobody listens":
            settings = self._servers.nobody(source)
        elif kind == "another certificate":
            settings = {"SSL_CERT_FILE": str(self._servers.other.certificate)}
        elif kind == "another host":
            settings = {"VETURBOIO_KMS_HOST": self._servers.other.host, "SSL_CERT_FILE": str(self._servers.other.certificate)}
        if kind in ("garbage", "huge"):
            times = 99  # where it is asked again it says the same
        return Scenario(operation, source, kind, how, times, tuple(settings.items()))

    def run(self, scenario: Scenario) -> None:
        site, client = self._sites[scenario.source], self._clients[scenario.source]
        target = site / "out"
        for path in target.iterdir():
            path.unlink()
        (target / "model").write_bytes(OLD)
        variables = {**self._servers.variables(scenario.source), **dict(scenario.settings)}
        if scenario.how:
            self._servers.misbehave(scenario.source, {**scenario.how, "times": scenario.times})
        try:
            outcome = client.run(scenario.operation, variables)
        finally:
            self._servers.behave()
        if outcome.left:
            raise ViolationError(f"left in the process: {outcome.left}")
        self._servers.check_no_secret_in(outcome.said)
        self._check_end(scenario, outcome, site)
        names = [path.name for path in target.iterdir()]
        content = (target / "model").read_bytes()
        if names != ["model"] or (content == OLD) == (scenario.operation in SAVES and not outcome.error):
            raise ViolationError(f"{outcome.error or 'it ended well'}, and left {names}, {content[:50]!r}")
        if content != OLD:
            read = client.run(scenario.operation, self._servers.variables(scenario.source), read_back=True)
            if read.error:
                raise ViolationError(f"what was saved cannot be read: {read}")
        self.ends[scenario.source, scenario.kind, outcome.error or "well"] += 1

    def _check_end(self, scenario: Scenario, outcome: Outcome, site: Path) -> None:
        if scenario.passes is not None and scenario.passes == bool(outcome.error):
            raise ViolationError(f"had to {'end well' if scenario.passes else 'fail'}: {outcome}")
        if not outcome.error:
            return
        file = str(site / ("out" if scenario.operation in SAVES else "encrypted"))
        if outcome.error != "CipherKeyError" or not outcome.file.startswith(file):
            raise ViolationError(f"does not name the file: {outcome}")
        if f"{SOURCES[scenario.source]}: " not in outcome.said:
            raise ViolationError(f"does not name who was asked: {outcome}")

    def _encrypt(self, source: str) -> None:
        """Makes the files to load, as they are with a key from there."""
        site = self._sites[source]
        if not site.exists():
            Site(site, COUNT)
            (site / "encrypted").mkdir()
        for operation, name in (("save_file", "model.safetensors"), ("save_pt", "model.pt")):
            outcome = self._clients[source].run(operation, self._servers.variables(source))
            if outcome.error:
                raise ViolationError(f"{operation} without a fault: {outcome}")
            (site / "out" / "model").rename(site / "encrypted" / name)
