"""Where keys come from: a C++ program asks for them, and servers of the kinds that there are answer, or do not."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import kms as fake_kms
from fakes import trusted_service as fake_service
from fakes.build import make
from fakes.kms import FakeKms, Request, error_body
from fakes.trusted_service import FakeTrustedService

ROOT = Path(__file__).parents[2]
NO_SOCKET = "socket /nowhere/socket: No such file or directory"
KEY, IV = b"the key of a run", b"the IV of a run."
HEADER_IV = b"the header's IV."
ENVIRONMENT_KEY, ENVIRONMENT_IV = b"a 256-bit key from the surround.", b"environment's IV"
# None of these may ever be seen in what the program says.
SECRETS = [
    *(text for key in (KEY, ENVIRONMENT_KEY) for text in (key.decode(), base64.b64encode(key).decode())),
    fake_kms.SECRET_KEY,
    fake_service.SECRET_KEY,
    fake_service.SESSION_TOKEN,
]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def digest(key: bytes, iv: bytes) -> str:
    """How the program tells which key it has."""
    return f"{hashlib.sha256(key).hexdigest()} {encoded(iv)}"


FROM_ENVIRONMENT = {"VETURBOIO_KEY": encoded(ENVIRONMENT_KEY), "VETURBOIO_IV": encoded(ENVIRONMENT_IV)}


class Program:
    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, *arguments: str, environment: dict[str, str]) -> subprocess.Popen[str]:
        # A machine that has a real service is no reason to ask it.
        variables = {"DATAPIPE_SOCKET_PATH": "/nowhere/socket", **environment}
        pipe = subprocess.PIPE
        return subprocess.Popen([self.path, *arguments], env=variables, stdout=pipe, stderr=pipe, text=True)

    def finish(self, process: subprocess.Popen[str]) -> list[str]:
        """The lines that it has printed."""
        with process:
            out, err = process.communicate(timeout=60)
        assert err == ""
        assert [secret for secret in SECRETS if secret in out] == []
        return out.splitlines()

    def lines(self, *arguments: str, environment: dict[str, str]) -> list[str]:
        return self.finish(self.start(*arguments, environment=environment))

    def find(
        self, environment: dict[str, str], header: tuple[str, str, str] | tuple[()] = (), path: str = "/a/model"
    ) -> list[str]:
        return self.lines("find", path, *header, environment=environment)

    def why_not_wrapped(self, environment: dict[str, str]) -> str:
        kind, message = self.lines("wrap", "CTR-128", environment=environment)
        assert kind == "no_key"
        before = "the new data key was not wrapped: the KMS: "
        assert message.startswith(before)
        return message.removeprefix(before)


@pytest.fixture(scope="module")
def program() -> Program:
    make("the program that asks for keys", ROOT / "tests" / "cpp", "find_key_program")
    return Program(ROOT / "build" / "cpp" / "find_key_program")


@pytest.fixture
def kms() -> Iterator[FakeKms]:
    with FakeKms() as server:
        yield server


@pytest.fixture
def service(kms: FakeKms) -> Iterator[FakeTrustedService]:
    with FakeTrustedService(kms=kms, key=KEY, iv=IV) as server:
        yield server


def header(kms: FakeKms, key: bytes = KEY, mode: str = "CTR-128") -> tuple[str, str, str]:
    return mode, encoded(HEADER_IV), kms.wrap(key)


def retry(retries: int = 0, interval: float = 0) -> dict[str, str]:
    return {"VETURBOIO_DATAPIPE_RETRY": str(retries), "VETURBOIO_DATAPIPE_RETRY_INTERVAL": str(interval)}


def nobody(*, kms: str = "the file has no header with a wrapped key", service: str = NO_SOCKET) -> list[str]:
    """What the program says when no source has the key."""
    reasons = f"the KMS: {kms}; the trusted service: {service}; the environment: VETURBOIO_KEY is not set"
    return ["no_key", f"nobody has the key: {reasons}"]


# Which source, and in which order.


def test_the_environment_is_the_last_resort(program):
    assert program.find(FROM_ENVIRONMENT) == ["the environment", digest(ENVIRONMENT_KEY, ENVIRONMENT_IV)]


def test_the_trusted_service_comes_before_the_environment(program, service):
    found = program.find({**FROM_ENVIRONMENT, **service.environment(), "POD_NAME": "pod-7"}, path="/a/møde l")
    assert found == ["the trusted service", digest(KEY, IV)]
    (request,) = service.requests
    assert request.headers["x-datapipe-task-type"] == "encrypt-key"
    assert request.headers["x-encrypt-caller-pod"] == "pod-7"
    assert request.headers["x-tos-path"].encode("latin-1").decode() == "/a/møde l"


def test_the_header_comes_before_the_trusted_service(program, kms, service):
    found = program.find({**FROM_ENVIRONMENT, **kms.environment(), **service.environment()}, header(kms, b"wrapped key 1234"))
    assert found == ["the KMS", digest(b"wrapped key 1234", HEADER_IV)]
    assert service.asked == ["kms-sts", "top"]


@pytest.mark.parametrize("has_service", [True, False])
def test_a_header_whose_kms_refuses_leaves_it_to_the_others(program, kms, service, has_service):
    kms.fail(times=1, status=403)
    environment = {**FROM_ENVIRONMENT, **kms.environment()}
    if has_service:
        assert program.find({**environment, **service.environment()}, header(kms)) == ["the trusted service", digest(KEY, IV)]
    else:
        found = program.find(environment, header(kms))
        assert found == ["the environment", digest(ENVIRONMENT_KEY, ENVIRONMENT_IV)]


def test_nobody_has_the_key(program):
    assert program.find({}) == nobody()


def test_each_source_tells_its_reason(program, kms, service):
    service.misbehave(status=500)
    kms_reason = (
        "nobody has credentials for it (the trusted service: the answer has status 500 (1 attempt); "
        "the environment: VETURBOIO_KMS_ACCESS_KEY is not set)"
    )
    found = program.find({**kms.environment(credentials=False), **service.environment(), **retry()}, header(kms))
    assert found == nobody(kms=kms_reason, service="the answer has status 500 (1 attempt)")


def test_a_path_that_would_be_a_header_is_not_sent(program, service):
    found = program.find(service.environment(), path="/a\r\nX-Datapipe-Task-Type: kms-sts")
    assert found == nobody(service="a line break or another control character cannot be sent in the header X-TOS-Path")
    assert service.requests == []


# The KMS.


@pytest.mark.parametrize(("mode", "size"), [("CTR-128", 16), ("CTR-256", 32)])
@pytest.mark.parametrize("through_service", [False, True])
def test_a_new_key_is_wrapped_and_found_again(program, kms, service, mode, size, through_service):
    environment = kms.environment(credentials=not through_service)
    if through_service:
        environment |= service.environment()
    before = int(time.time())
    made, new_digest = program.lines("wrap", mode, environment=environment)
    made_mode, iv, wrapped, timestamp = made.split()
    key = kms.unwrap(wrapped)
    assert (made_mode, len(key), len(base64.b64decode(iv))) == (mode, size, 16)
    assert before <= int(timestamp) <= time.time()
    assert new_digest == digest(key, base64.b64decode(iv))
    assert program.find(environment, (mode, iv, wrapped)) == ["the KMS", new_digest]
    assert program.lines("wrap", mode, environment=environment)[1] != new_digest
    assert service.asked == (["kms-sts", "top"] * 3 if through_service else [])


def test_without_tls_on_the_loopback_interface(program):
    with FakeKms(tls=False) as kms:
        assert program.find(kms.environment(), header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]
        with FakeTrustedService(kms=kms) as service:
            found = program.find({**kms.environment(credentials=False), **service.environment()}, header(kms))
            assert found == ["the KMS", digest(KEY, HEADER_IV)]


def test_the_session_token_of_the_environment_is_sent(program):
    with FakeKms(session_token="a session token") as kms:
        environment = kms.environment()
        assert program.find(environment, header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]
        del environment["VETURBOIO_KMS_SESSION_TOKEN"]
        refused = "the answer has status 403, InvalidSecurityToken: the session is another one"
        assert program.why_not_wrapped(environment) == refused


def test_another_region_is_signed_for(program):
    with FakeKms(region="ap-southeast-1") as kms:
        assert program.find(kms.environment(), header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]


def test_lent_credentials_come_before_those_of_the_environment(program, kms, service):
    environment = {**kms.environment(), "VETURBOIO_KMS_SECRET_KEY": "a wrong one", **service.environment()}
    assert program.find(environment, header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]
    assert kms.requests[0].headers["x-security-token"] == fake_service.SESSION_TOKEN


def test_a_service_that_lends_no_credentials_forwards_all_the_same(program, kms):
    with FakeTrustedService(kms=kms, tasks=("top",)) as service:
        environment = {**kms.environment(), **service.environment(), **retry()}
        assert program.find(environment, header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]
        assert service.asked == ["kms-sts", "top"]


def test_a_socket_that_nobody_listens_on_is_no_way_to_the_kms(program, kms, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    environment = {**kms.environment(), "DATAPIPE_SOCKET_PATH": str(tmp_path / "dead"), **retry()}
    assert program.find(environment, header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]


def test_a_wrong_secret_key_is_refused_at_once(program, kms):
    environment = {**kms.environment(), "VETURBOIO_KMS_SECRET_KEY": "another secret"}
    refused = "the answer has status 403, SignatureDoesNotMatch: the secret key is another one"
    assert program.find(environment, header(kms)) == nobody(kms=refused)
    assert program.why_not_wrapped(environment) == refused
    assert len(kms.requests) == 2


def test_a_refusal_through_the_service_is_the_one_of_the_kms(program, kms, service):
    kms.fail(times=1, status=404, code="KeyNotFound", message="no such key here")
    environment = {**kms.environment(credentials=False), **service.environment()}
    assert program.why_not_wrapped(environment) == "the answer has status 404, KeyNotFound: no such key here"
    assert service.asked == ["kms-sts", "top"]


@pytest.mark.parametrize("through_service", [False, True])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_kms_is_asked_again(program, kms, service, status, through_service):
    kms.fail(times=2, status=status)
    environment = {**kms.environment(), **(service.environment() if through_service else {})}
    assert program.find(environment, header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]
    assert len(kms.requests) == 3


def test_a_kms_that_stays_busy_is_given_up(program, kms):
    kms.fail(times=100)
    refused = "the answer has status 503, Busy: come back later (5 attempts)"
    assert program.why_not_wrapped(kms.environment()) == refused
    assert len(kms.requests) == 5


def test_a_kms_that_is_gone_is_given_up(program, kms):
    environment = kms.environment()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        environment["VETURBOIO_KMS_HOST"] = f"127.0.0.1:{closed.getsockname()[1]}"
        reason = "no connection: Connection refused (5 attempts)"
        assert program.why_not_wrapped(environment) == reason


def test_a_connection_that_breaks_is_made_again(program, kms):
    kms.misbehave(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", times=2)
    assert program.find(kms.environment(), header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]


def test_a_slow_kms_is_waited_for(program, kms):
    kms.misbehave(delay=1.5, answers=False)
    assert program.find(kms.environment(), header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]


GARBAGE = {
    "html": (b"<html>busy</html>", "the answer is not a JSON object"),
    "nothing": (b"", "the answer is not a JSON object"),
    "an array": (b'["' + KEY + b'"]', "the answer is not a JSON object"),
    "no result": (b"{}", "the answer has no Result/CiphertextBlob"),
    "a number": (b'{"Result": {"CiphertextBlob": 5}}', "the answer has no Result/CiphertextBlob"),
    "too long": (b'{"Result": "' + b"x" * (1 << 20) + b'"}', "the answer is longer than 1048576 bytes"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_from_the_kms_is_told_as_such(program, kms, kind):
    body, reason = GARBAGE[kind]
    kms.misbehave(status=200, body=body)
    assert program.why_not_wrapped(kms.environment()) == reason


def test_what_is_no_http_is_told_as_such(program, kms):
    kms.misbehave(raw=b"garbage\r\n\r\n")
    assert program.why_not_wrapped(kms.environment()) == "the answer is not HTTP"


def test_an_unwrapped_key_that_is_none_is_not_shown(program, kms):
    kms.misbehave(status=200, body=json.dumps({"Result": {"Plaintext": "!" + encoded(KEY)}}).encode())
    assert program.find(kms.environment(), header(kms)) == nobody(kms="the answer's Result/Plaintext is not base64")


def test_an_unwrapped_key_of_another_mode_is_none(program, kms):
    reason = "the unwrapped key has 16 bytes, by the file's header it has 32"
    assert program.find(kms.environment(), header(kms, mode="CTR-256")) == nobody(kms=reason)


def test_a_wrapped_key_that_is_not_even_text_is_sent_as_far_as_json_goes(program, kms):
    damaged = ("CTR-128", encoded(HEADER_IV), 'a"\\b\n')
    refused = "the answer has status 400, InvalidParameter: Error in the request"
    assert program.find(kms.environment(), damaged) == nobody(kms=refused)
    assert json.loads(kms.requests[0].body) == {"CiphertextBlob": 'a"\\b\n'}


def test_a_long_refusal_is_cut_and_stays_one_line_of_whole_characters(program, kms):
    kms.misbehave(status=400, body=error_body("C" * 100, "line\r\nbreak " + "é" * 1000))
    expected = f"the answer has status 400, {'C' * 64}...: line\\x0d\\x0abreak {'é' * 122}..."
    assert program.why_not_wrapped(kms.environment()) == expected


@pytest.mark.parametrize("place", ["code", "message"])
@pytest.mark.parametrize("which", ["secret key", "session token", "data key"])
def test_a_refusal_that_repeats_a_secret_is_not_repeated(program, kms, service, which, place):
    def body(request: Request) -> bytes:
        plaintext = json.loads(request.body)["Plaintext"]
        secret = {"secret key": fake_service.SECRET_KEY, "session token": fake_service.SESSION_TOKEN, "data key": plaintext}
        text = f"what is {secret[which]}?"
        # An escape that JSON allows and nobody needs.
        return (error_body(text, "bad") if place == "code" else error_body("Bad", text)).replace(b"/", b"\\/")

    kms.misbehave(status=400, body=body)
    assert program.why_not_wrapped({**kms.environment(), **service.environment()}) == "the answer has status 400"


def test_a_certificate_that_nobody_vouches_for_is_refused(program, kms):
    environment = kms.environment()
    del environment["SSL_CERT_FILE"]
    assert re.fullmatch("SSL certificate problem: self.signed certificate", program.why_not_wrapped(environment))
    assert kms.requests == []


def test_a_certificate_of_another_host_is_refused(program):
    with FakeKms(certified="DNS:kms.example.com") as kms:
        reason = program.why_not_wrapped(kms.environment())
        assert re.fullmatch(r"SSL: no alternative certificate subject name matches target .*'127\.0\.0\.1'", reason)
        assert kms.requests == []


def test_without_tls_no_other_host_is_asked(program, kms):
    environment = {**kms.environment(), "VETURBOIO_KMS_HOST": "http://kms.example.com"}
    reason = "VETURBOIO_KMS_HOST=http://kms.example.com: without TLS only a loopback host is asked"
    assert program.why_not_wrapped(environment) == reason


@pytest.mark.parametrize("name", ["KEYRING_NAME", "KEY_NAME"])
def test_the_kms_needs_a_name_for_its_key(program, kms, service, name):
    environment = {**kms.environment(), **service.environment(), f"VETURBOIO_KMS_{name}": ""}
    assert program.why_not_wrapped(environment) == f"VETURBOIO_KMS_{name} is not set"
    assert service.requests == []


def test_another_key_of_the_kms_cannot_unwrap(program, kms):
    environment = {**kms.environment(), "VETURBOIO_KMS_KEY_NAME": "another"}
    assert program.find(environment, header(kms)) == nobody(kms="the answer has status 404, KeyNotFound: no such key here")


# The trusted service.


def test_a_busy_service_is_asked_again(program, service):
    service.misbehave(status=404, times=1)
    service.misbehave(status=503, times=1)
    service.misbehave(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", times=1)
    service.misbehave(raw=b"garbage\r\n\r\n", times=1)
    found = program.find({**service.environment(), **retry(4, 0.01)})
    assert found == ["the trusted service", digest(KEY, IV)]
    assert service.asked == ["encrypt-key"] * 5


def test_a_service_that_stays_busy_is_given_up(program, service):
    service.misbehave(status=503)
    found = program.find({**service.environment(), **retry(3, 0.01), **FROM_ENVIRONMENT})
    assert found == ["the environment", digest(ENVIRONMENT_KEY, ENVIRONMENT_IV)]
    assert service.asked == ["encrypt-key"] * 4


def test_a_service_is_asked_again_by_default(program, service):
    service.misbehave(status=503, times=1)
    begin = time.monotonic()
    assert program.find(service.environment()) == ["the trusted service", digest(KEY, IV)]
    assert time.monotonic() - begin > 1.9


def test_a_service_that_is_not_there_is_not_waited_for(program):
    begin = time.monotonic()
    assert program.find(FROM_ENVIRONMENT)[0] == "the environment"
    assert time.monotonic() - begin < 1.5


def test_a_key_of_the_wrong_length_is_not_shown(program, service):
    service.answers["encrypt-key"]["Key"] = encoded(KEY + b"x")
    reason = "the answer's Key has 17 bytes: AES-CTR takes 16 or 32"
    assert program.find(service.environment()) == nobody(service=reason)


def test_garbage_from_the_service_is_not_shown(program, service):
    service.misbehave(status=200, body=b'{"Key": ' + KEY)
    assert program.find(service.environment()) == nobody(service="the answer is not a JSON object")


def test_a_slow_service_is_waited_for(program, service):
    service.misbehave(delay=1.5, answers=False)
    assert program.find(service.environment()) == ["the trusted service", digest(KEY, IV)]


def test_a_proxy_of_the_environment_sees_nothing(program, kms, service):
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    assert program.find({**proxies, **service.environment()}) == ["the trusted service", digest(KEY, IV)]
    assert program.find({**proxies, **kms.environment()}, header(kms)) == ["the KMS", digest(KEY, HEADER_IV)]


# Ctrl-C. What it waits for would last for much longer than the test.


def interrupt(program: Program, process: subprocess.Popen[str]) -> None:
    time.sleep(0.5)  # well inside what it waits for
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    kind, message, milliseconds = program.finish(process)
    assert (kind, message) == ("cancelled", "cancelled")
    assert int(milliseconds) < 500


def test_ctrl_c_while_the_service_is_silent(program, service):
    service.misbehave(delay=60)
    interrupt(program, program.start("find", "/a/model", environment={**service.environment(), **FROM_ENVIRONMENT}))


def test_ctrl_c_between_two_attempts_at_the_service(program, service):
    service.misbehave(status=503)
    interrupt(program, program.start("find", "/a/model", environment={**service.environment(), **retry(60, 60)}))


def test_ctrl_c_while_the_kms_is_silent(program, kms):
    kms.misbehave(delay=60)
    interrupt(program, program.start("find", "/a/model", *header(kms), environment={**kms.environment(), **FROM_ENVIRONMENT}))


def test_ctrl_c_while_the_kms_is_silent_behind_the_service(program, kms, service):
    kms.misbehave(delay=60)
    environment = {**kms.environment(), **service.environment()}
    interrupt(program, program.start("wrap", "CTR-128", environment=environment))


def test_ctrl_c_between_two_attempts_at_the_kms(program, kms):
    kms.fail(times=100)
    interrupt(program, program.start("wrap", "CTR-128", environment=kms.environment()))


def test_ctrl_c_while_the_tls_handshake_hangs(program, kms):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        environment = {**kms.environment(), "VETURBOIO_KMS_HOST": f"127.0.0.1:{silent.getsockname()[1]}"}
        interrupt(program, program.start("wrap", "CTR-128", environment=environment))
