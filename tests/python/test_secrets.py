"""Keys and credentials are gone from memory when a load or a save has ended, and are in no core dump while it runs."""

from __future__ import annotations

import base64
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from secret_memory import Place, Process, ends_of, last_round_keys

from fakes import trusted_service as fake_service
from fakes.kms import FakeKms
from fakes.trusted_service import FakeTrustedService

NO_SERVICE = {"DATAPIPE_SOCKET_PATH": "/nowhere/socket"}


def forms(key: bytes) -> set[bytes]:
    """What to look for when a key may be nowhere."""
    return ends_of(key, last_round_keys(key), base64.b64encode(key))


def hidden(data: bytes) -> str:
    """Code that makes it, and does not have it."""
    return f"bytes(byte ^ 0x5A for byte in bytes.fromhex('{bytes(byte ^ 0x5A for byte in data).hex()}'))"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    started = Process()
    started.run(f"tensors = {{'a': torch.arange(300_000)}}; path = {str(tmp_path_factory.mktemp('secrets') / 'model')!r}")
    yield started
    started.close()


def new_places(process: Process, pieces: set[bytes], code: str, end: str = "done") -> list[Place]:
    """Where, when the code has ended, any of them is that was not there before: what the caller has is his."""
    before = process.find(pieces)
    assert process.run(code).startswith(end)
    return [place for address, place in process.find(pieces).items() if address not in before]


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("source", ["arguments", "environment"])
def test_a_key_of_the_callers_is_nowhere_else(process: Process, source: str, size: int):
    draw = random.Random(f"{source} {size}")
    key, iv = draw.randbytes(size), draw.randbytes(16)
    process.run(f"key, iv = {hidden(key)}, {iv!r}")
    options = "key=key, iv=iv"
    if source == "environment":
        process.run("import base64; os.environ['VETURBOIO_KEY'] = base64.b64encode(key).decode()")
        process.run(f"os.environ.update({NO_SERVICE}); os.environ['VETURBOIO_IV'] = base64.b64encode(iv).decode()")
        options = "use_cipher=True"
    # Of what ends well, and of what fails.
    code = f"""
veturboio.save_file(tensors, path, {options})
assert torch.equal(veturboio.load(path, {options})["a"], tensors["a"])
for _ in veturboio.stream(path, {options}): pass
try: veturboio.save_file(tensors, '/nowhere/at/all', {options})
except FileNotFoundError: pass
open(path, 'wb').write(bytes(1000))
veturboio.load(path, {options})
"""
    assert new_places(process, forms(key), code, "CipherKeyError: ") == []
    process.run("for name in ('VETURBOIO_KEY', 'VETURBOIO_IV'): os.environ.pop(name, None)")


def test_a_key_of_the_trusted_service_is_nowhere(process: Process):
    key = random.Random(3).randbytes(32)
    with FakeTrustedService(key=key) as service:
        process.run(f"os.environ.update({service.environment()})")
        assert process.run("veturboio.save_file(tensors, path, use_cipher=True)") == "done"
        assert process.run("assert torch.equal(veturboio.load(path, use_cipher=True)['a'], tensors['a'])") == "done"
    assert process.find(forms(key)) == {}


@pytest.mark.parametrize("through_service", [False, True])
def test_a_key_of_the_kms_and_its_credentials_are_nowhere(process: Process, through_service: bool):
    """A fresh key of a save, the same again of a load; and what of the credentials the environment has, it has alone."""
    draw = random.Random(f"KMS {through_service}")
    secret_key, token = (base64.b64encode(draw.randbytes(24)).decode() for _ in range(2))
    with (
        FakeKms(secret_key=secret_key, session_token=token) as kms,
        FakeTrustedService(kms=kms, tasks=("kms-sts", "top")) as service,
    ):
        variables = {**kms.environment(credentials=not through_service), **NO_SERVICE, "VETURBOIO_CIPHER_HEADER": "1"}
        if through_service:
            lend(service, kms, secret_key, token)
            variables |= service.environment() | {"VETURBOIO_DATAPIPE_RETRY": "1", "VETURBOIO_DATAPIPE_RETRY_INTERVAL": "0.1"}
        process.run(f"os.environ.update({variables})")
        credentials = ends_of(secret_key.encode(), token.encode())
        before = process.find(credentials)
        assert process.run("veturboio.save_file(tensors, path, use_cipher=True); veturboio.load(path, use_cipher=True)") == "done"
        kms.fail(times=1, status=403)
        assert process.run("veturboio.load(path, use_cipher=True)").startswith("CipherKeyError: ")
        assert process.find(credentials).keys() - before == set()
        key = base64.b64decode(json.loads(kms.requests[0].body)["Plaintext"])
    assert process.find(forms(key)) == {}
    process.run("[os.environ.pop(name) for name in list(os.environ) if name.startswith('VETURBOIO_')]")


def lend(service: FakeTrustedService, kms: FakeKms, secret_key: str, token: str) -> None:
    """Credentials of which no other test knows."""
    kms.callers[fake_service.ACCESS_KEY] = (secret_key, token)
    names = {"AccessKeyId": fake_service.ACCESS_KEY, "SecretAccessKey": secret_key, "SessionToken": token}
    service.answers["kms-sts"] = {"Cred": names}


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("size", [16, 32])
def test_a_key_is_in_no_core_dump_while_a_load_runs(process: Process, tmp_path: Path, size: int):
    """Which waits between two tensors of a stream."""
    draw = random.Random(size)
    key, iv = draw.randbytes(size), draw.randbytes(16)
    file = str(tmp_path / "model")
    process.run(f"key, iv = {hidden(key)}, {iv!r}; many = {{str(i): torch.ones(1 << 20) for i in range(40)}}")
    assert process.run(f"veturboio.save_file(many, {file!r}, key=key, iv=iv)") == "done"
    pieces = ends_of(key, last_round_keys(key))
    begin = f"stream = iter(veturboio.stream({file!r}, key=key, iv=iv, max_host_bytes=20 << 20)); first = next(stream)"
    found = new_places(process, pieces, begin)
    # Of the round keys OpenSSL has copies in memory of its own, where it computes the keystream: on processors without AES-NI.
    by_openssl = re.search(r"^flags\b.*\baes\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE) is None
    assert {place.is_dumped for place in found} == ({True, False} if by_openssl else {False})
    assert process.run("stream.close(); del stream, first, many") == "done"


def test_credentials_are_in_no_core_dump_while_the_kms_is_asked(process: Process):
    """What curl is about to send is in memory of curl's: the token, which is sent; not the secret key, which signs."""
    secret_key = base64.b64encode(random.Random(5).randbytes(24)).decode()
    with FakeKms(secret_key=secret_key) as kms:
        variables = {**kms.environment(), **NO_SERVICE, "VETURBOIO_CIPHER_HEADER": "1"}
        process.run(f"os.environ.update({variables})")
        pieces = ends_of(secret_key.encode())
        before = process.find(pieces)
        kms.misbehave(delay=300)
        process.start("veturboio.save_file(tensors, path, use_cipher=True)")
        wait_until(lambda: len(kms.requests) == 1)
        found = [place for address, place in process.find(pieces).items() if address not in before]
    assert process.wait().startswith("CipherKeyError: ")
    assert found, "nobody has the key: the test is none"
    assert [place for place in found if place.is_dumped] == []
    process.run("[os.environ.pop(name) for name in list(os.environ) if name.startswith('VETURBOIO_')]")


def test_the_round_keys_that_are_looked_for_are_those_of_aes():
    """The examples of FIPS 197."""
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    assert last_round_keys(key).hex() == "d014f9a8c9ee2589e13f0cc8b6630ca6"
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    assert last_round_keys(key)[16:].hex() == "fe4890d1e6188d0b046df344706c631e"


def test_a_copy_that_somebody_keeps_is_found(process: Process):
    key = random.Random(7).randbytes(16)
    found = new_places(process, ends_of(key), f"kept = bytearray({hidden(key)})")
    assert any(place.is_dumped for place in found)
