"""A key management service on the loopback interface, over TLS with a certificate made for the run.

It wraps and unwraps data keys as the real one does, checks every request's signature, and misbehaves when told.

    with FakeKms() as kms:
        environment.update(kms.environment())
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import io
import json
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote

ACCESS_KEY = "AKFAKE0001"
SECRET_KEY = "fake/secret+key=="
VERSION = "2021-02-18"
SIGNED_HEADERS = ("content-type", "host", "x-content-sha256", "x-date")


@dataclass
class Request:
    """What was asked, with the names of the headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Misbehaviour:
    """What is answered in place of what was asked for."""

    status: int = 503
    body: bytes | Callable[[Request], bytes] = b"{}"
    delay: float = 0.0  # seconds before anything is answered, even what was asked for
    raw: bytes | None = None  # sent as it is, and the connection closed
    times: int | None = None  # how many requests it is for; without end by default
    answers: bool = True  # False: only the delay
    cut: int | None = None  # so many bytes of what was asked for are sent, and the connection closed
    reset: bool = False  # closed by a reset


def error_body(code: str, message: str) -> bytes:
    return json.dumps({"ResponseMetadata": {"Error": {"Code": code, "Message": message}}}).encode()


@dataclass
class Behaviour:
    """Which misbehaviour the next request meets, and what there is to wait for when it is a delay."""

    pending: list[Misbehaviour] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def take(self) -> Misbehaviour | None:
        with self.lock:
            if not self.pending:
                return None
            first = self.pending[0]
            if first.times is not None:
                first.times -= 1
                if first.times == 0:
                    self.pending.pop(0)
            return first


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """Speaks HTTP/1.1 and prints nothing."""

    protocol_version = "HTTP/1.1"
    behaviour: Behaviour
    _cut: int | None = None

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def read_request(self) -> Request:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)

    def reply(self, status: int, body: bytes) -> None:
        stream, self.wfile = self.wfile, io.BytesIO()
        self._write_reply(status, body)
        stream.write(self.wfile.getvalue()[: self._cut])
        self.wfile = stream

    def _write_reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def misbehaves(self, request: Request) -> bool:
        wrong = self.behaviour.take()
        if wrong is None:
            return False
        if self.behaviour.closing.wait(wrong.delay):
            self.close_connection = True
            return True
        if wrong.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if wrong.cut is not None:
            self._cut, self.close_connection = wrong.cut, True
            return False
        if not wrong.answers:
            return False
        if wrong.raw is None:
            self.reply(wrong.status, wrong.body(request) if callable(wrong.body) else wrong.body)
        else:
            self.wfile.write(wrong.raw)
            self.close_connection = True
        return True


def serve(server: http.server.HTTPServer) -> threading.Thread:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    return thread


def signature(secret_key: str, region: str, request: Request) -> tuple[str, str]:
    """The scope and the signature that the request should have."""
    headers = request.headers
    date = headers["x-date"]
    _, _, query = request.path.partition("?")
    pairs = sorted(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
    lines = [
        request.method,
        "/",
        "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs),
        *(f"{name}:{headers[name].strip()}" for name in SIGNED_HEADERS),
        "",
        ";".join(SIGNED_HEADERS),
        hashlib.sha256(request.body).hexdigest(),
    ]
    scope = f"{date[:8]}/{region}/kms/request"
    to_sign = "\n".join(["HMAC-SHA256", date, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    key = secret_key.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return scope, hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


class FakeKms:
    def __init__(
        self,
        *,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        session_token: str | None = None,
        region: str = "cn-beijing",
        keyring_name: str = "ring 1",
        key_name: str = "key/ü",
        tls: bool = True,
        certified: str = "IP:127.0.0.1,DNS:localhost",
    ) -> None:
        self.region, self.keyring_name, self.key_name, self.tls = region, keyring_name, key_name, tls
        self._certified = certified
        # Who may ask: access key -> secret key and session token.
        self.callers: dict[str, tuple[str, str | None]] = {access_key: (secret_key, session_token)}
        self._own_access_key = access_key
        self.requests: list[Request] = []
        self._behaviour = Behaviour()

    def __enter__(self) -> FakeKms:
        self._folder = Path(tempfile.mkdtemp(prefix="fake-kms-"))
        context = self._make_certificate() if self.tls else None
        kms = self

        class Handler(QuietHandler):
            behaviour = kms._behaviour

            def setup(self) -> None:
                # Here, in the connection's own thread, and not on the listening socket: no client holds up another.
                if context is not None:
                    self.request.settimeout(10)
                    self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def finish(self) -> None:
                super().finish()
                self.request.close()  # what shutdown_request() has is the socket below

            def do_POST(self) -> None:
                request = self.read_request()
                with kms._behaviour.lock:
                    kms.requests.append(request)
                if not self.misbehaves(request):
                    self.reply(*kms._answer(request))

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = serve(self._server)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._behaviour.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        shutil.rmtree(self._folder)

    def _make_certificate(self) -> ssl.SSLContext:
        key = self._folder / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=fake KMS", "-addext", f"subjectAltName={self._certified}"]
        command += ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        return context

    @property
    def certificate(self) -> Path:
        return self._folder / "certificate.pem"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def environment(self, *, credentials: bool = True) -> dict[str, str]:
        """What tells a client of this server, and of its credentials if it is to have them from the environment."""
        names = {
            "HOST": self.host if self.tls else f"http://{self.host}",
            "REGION": self.region,
            "KEYRING_NAME": self.keyring_name,
            "KEY_NAME": self.key_name,
        }
        if credentials:
            secret_key, session_token = self.callers[self._own_access_key]
            names |= {"ACCESS_KEY": self._own_access_key, "SECRET_KEY": secret_key}
            if session_token is not None:
                names["SESSION_TOKEN"] = session_token
        variables = {f"VETURBOIO_KMS_{name}": value for name, value in names.items()}
        if self.tls:
            variables["SSL_CERT_FILE"] = str(self.certificate)
        return variables

    def misbehave(self, **how: Any) -> None:
        """The next requests meet this Misbehaviour."""
        self._behaviour.pending.append(Misbehaviour(**how))

    def behave(self) -> None:
        """From now on, whatever was to come."""
        with self._behaviour.lock:
            self._behaviour.pending.clear()

    def fail(self, times: int, status: int = 503, code: str = "Busy", message: str = "come back later") -> None:
        self.misbehave(times=times, status=status, body=error_body(code, message))

    def wrap(self, key: bytes) -> str:
        """What it makes of a data key. The same server settings make the same of it, in another process, too."""
        return base64.b64encode(b"wrapped:" + self._mask(key)).decode()

    def unwrap(self, blob: str) -> bytes:
        wrapped = base64.b64decode(blob, validate=True)
        if not wrapped.startswith(b"wrapped:"):
            raise ValueError("not wrapped by this server")
        return self._mask(wrapped.removeprefix(b"wrapped:"))

    def _mask(self, data: bytes) -> bytes:
        pad = hashlib.shake_256(f"{self.keyring_name}/{self.key_name}".encode()).digest(len(data))
        return bytes(a ^ b for a, b in zip(data, pad, strict=True))

    def _answer(self, request: Request) -> tuple[int, bytes]:
        refused = self._why_refused(request.headers, request)
        if refused is not None:
            return 403, error_body(*refused)
        path, _, query = request.path.partition("?")
        asked = dict(parse_qsl(query))
        try:
            body = json.loads(request.body)
            if path != "/" or asked.pop("Version") != VERSION:
                return 404, error_body("InvalidActionOrVersion", "no such thing here")
            action = asked.pop("Action")
            if asked != {"KeyName": self.key_name, "KeyringName": self.keyring_name}:
                return 404, error_body("KeyNotFound", "no such key here")
            if action == "Encrypt":
                result = {"CiphertextBlob": self.wrap(base64.b64decode(body["Plaintext"], validate=True))}
            elif action == "Decrypt":
                result = {"Plaintext": base64.b64encode(self.unwrap(body["CiphertextBlob"])).decode()}
            else:
                return 404, error_body("InvalidActionOrVersion", "no such action here")
        except (KeyError, ValueError) as error:
            return 400, error_body("InvalidParameter", f"{type(error).__name__} in the request")
        return 200, json.dumps({"ResponseMetadata": {"RequestId": "1"}, "Result": result}).encode()

    def _why_refused(self, headers: Mapping[str, str], request: Request) -> tuple[str, str] | None:
        if headers.get("host") != self.host:
            return "InvalidHost", "this is another host"
        if headers.get("content-type") != "application/json":
            return "InvalidContentType", "only JSON is read here"
        if headers.get("x-content-sha256") != hashlib.sha256(request.body).hexdigest():
            return "InvalidBody", "the body is not the one that was signed"
        access_key = headers.get("authorization", "").removeprefix("HMAC-SHA256 Credential=").partition("/")[0]
        if access_key not in self.callers:
            return "InvalidAccessKey", "nobody has this access key"
        secret_key, session_token = self.callers[access_key]
        if headers.get("x-security-token") != session_token:
            return "InvalidSecurityToken", "the session is another one"
        try:
            scope, right = signature(secret_key, self.region, request)
        except (KeyError, ValueError):
            return "IncompleteSignature", "the request lacks what is to be signed"
        expected = f"HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={';'.join(SIGNED_HEADERS)}, Signature={right}"
        if headers["authorization"] != expected:
            return "SignatureDoesNotMatch", "the secret key is another one"
        return None
