"""The trusted service beside a container, on a unix socket: knows a data key and credentials, and forwards what is for the KMS.

with FakeKms() as kms, FakeTrustedService(kms=kms) as service:
    environment.update(service.environment())
"""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import shutil
import socketserver
import ssl
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from fakes.kms import Behaviour, FakeKms, Misbehaviour, QuietHandler, Request

TASK_HEADER = "x-datapipe-task-type"
ACCESS_KEY = "AKLENT0002"
SECRET_KEY = "lent/secret+key=="
SESSION_TOKEN = "lent-session-token"
SFCS_CREDENTIALS = {
    "CurrentTime": "2026-01-01T00:00:00+08:00",
    "ExpiredTime": "2026-01-01T01:00:00+08:00",
    "AccessKeyId": "AKSFCS0003",
    "SecretAccessKey": "sfcs/secret+key==",
    "SessionToken": "sfcs-session-token",
}
NAME_NODE = "name.node.example:9000"


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("unix", 0)  # http.server wants an address with a host in it

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


class FakeTrustedService:
    def __init__(
        self,
        *,
        kms: FakeKms | None = None,
        key: bytes = b"k" * 16,
        iv: bytes = b"i" * 16,
        tasks: tuple[str, ...] = ("ping", "encrypt-key", "kms-sts", "sfcs-sts", "top"),
    ) -> None:
        """`kms`: where to `top` requests go; it is told of the credentials that are lent here. `tasks`: what it knows to do."""
        self.kms, self.key, self.iv, self.tasks = kms, key, iv, tasks
        if kms is not None:
            kms.callers[ACCESS_KEY] = (SECRET_KEY, SESSION_TOKEN)
        # What is answered may be changed; by task. What can be called is asked each time.
        self.answers: dict[str, Any] = {
            "ping": {"message": "pong"},
            "encrypt-key": {"Key": base64.b64encode(key).decode(), "IV": base64.b64encode(iv).decode()},
            "kms-sts": {"Cred": {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "SessionToken": SESSION_TOKEN}},
            "sfcs-sts": {"Cred": SFCS_CREDENTIALS, "SfcsNameNodeAddress": NAME_NODE},
        }
        self.requests: list[Request] = []
        self._behaviour = Behaviour()

    def __enter__(self) -> FakeTrustedService:
        self._folder = Path(tempfile.mkdtemp(prefix="fake-service-"))
        service = self

        class Handler(QuietHandler):
            behaviour = service._behaviour

            def do_GET(self) -> None:  # noqa: N802
                self._do()

            def do_POST(self) -> None:  # noqa: N802
                self._do()

            def _do(self) -> None:
                request = self.read_request()
                with service._behaviour.lock:
                    service.requests.append(request)
                if not self.misbehaves(request):
                    self.reply(*service._answer(request))

        self._server = _Server(str(self.socket), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._behaviour.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        shutil.rmtree(self._folder)

    @property
    def socket(self) -> Path:
        return self._folder / "datapipe.sock"

    @property
    def asked(self) -> list[str]:
        """The tasks of the requests so far."""
        return [request.headers.get(TASK_HEADER, "none") for request in self.requests]

    def environment(self) -> dict[str, str]:
        return {"DATAPIPE_SOCKET_PATH": str(self.socket)}

    def misbehave(self, **how: Any) -> None:
        """The next requests meet this Misbehaviour."""
        self._behaviour.pending.append(Misbehaviour(**how))

    def behave(self) -> None:
        """From now on, whatever was to come."""
        with self._behaviour.lock:
            self._behaviour.pending.clear()

    def _answer(self, request: Request) -> tuple[int, bytes]:
        task = request.headers.get(TASK_HEADER, "")
        if task not in self.tasks:
            return 404, b'{"message": "no such task"}'
        if task == "top":
            return (405, b"{}") if request.method != "POST" else self._forward(request)
        if request.method != "GET" or request.path != "/" or request.headers["host"] != "localhost":
            return 400, b'{"message": "GET / of localhost is what is answered here"}'
        answer = self.answers[task]
        return 200, json.dumps(answer() if callable(answer) else answer).encode()

    def _forward(self, request: Request) -> tuple[int, bytes]:
        if self.kms is None:
            return 404, b'{"message": "no KMS"}'
        # The same request but for the header that brought it here.
        headers = {name: value for name, value in request.headers.items() if name != TASK_HEADER}
        connection: http.client.HTTPConnection
        if self.kms.tls:
            context = ssl.create_default_context(cafile=str(self.kms.certificate))
            connection = http.client.HTTPSConnection(self.kms.host, context=context, timeout=10)
        else:
            connection = http.client.HTTPConnection(self.kms.host, timeout=10)
        try:
            connection.request(request.method, request.path, body=request.body, headers=headers)
            with connection.getresponse() as response:
                return response.status, response.read()
        finally:
            connection.close()
