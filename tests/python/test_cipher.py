"""Encrypted files: every kind of key, format and way to load, and what becomes of mistakes."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

import veturboio
from fakes.kms import FakeKms
from fakes.trusted_service import FakeTrustedService
from veturboio import convert

# The tests use few keys; what they are warned of has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:.*the key and IV that encrypt this file")

HEADER_BYTES = 262_144
MAGIC = b"Byte3ncryptM0del"
KEYS = {128: bytes(range(1, 17)), 256: bytes(range(1, 33))}
IV = bytes(range(200, 216))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing of the machine's own settings, and no waiting for services that are not there."""
    for name in list(os.environ):
        if name.startswith(("VETURBOIO_", "VETUROIO_", "DATAPIPE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATAPIPE_SOCKET_PATH", "/nonexistent/datapipe.sock")
    monkeypatch.setenv("VETURBOIO_DATAPIPE_RETRY", "2")
    monkeypatch.setenv("VETURBOIO_DATAPIPE_RETRY_INTERVAL", "0.01")

    def change(values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.fixture
def kms():
    with FakeKms() as server:
        yield server


@pytest.fixture
def service(kms):
    with FakeTrustedService(kms=kms) as server:
        yield server


def tensors():
    generator = torch.Generator().manual_seed(1)
    return {
        "large": torch.randn(1300, 1000, generator=generator),
        "small": torch.arange(7),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
    }


def assert_same(loaded, expected):
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype for name, tensor in expected.items())


def key_in_environment(key, iv=IV):
    return {"VETURBOIO_KEY": base64.b64encode(key).decode(), "VETURBOIO_IV": base64.b64encode(iv).decode()}


def openssl(data, key, iv=IV):
    command = ["openssl", "enc", f"-aes-{8 * len(key)}-ctr", "-K", key.hex(), "-iv", iv.hex()]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def header_with(**fields):
    """A cipher header as other writers of the format make it."""
    return (MAGIC + json.dumps(fields).encode()).ljust(HEADER_BYTES, b"\0")


def read_shared(memory, size):
    content = bytes(memory.buf[:size])
    memory.close()
    memory.unlink()
    return content


# Every kind of key, header, format and way to load.

SOURCES = {  # without a header, and with one
    False: ["arguments", "environment", "trusted service"],
    True: ["KMS", "KMS by way of the trusted service"],
}


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize(("with_header", "source"), [(header, source) for header in SOURCES for source in SOURCES[header]])
@pytest.mark.parametrize("saved_as", ["safetensors", "torch"])
def test_round_trips(tmp_path, environment, kms, service, bits, with_header, source, saved_as):
    environment({"VETURBOIO_USE_CIPHER": "1"})
    arguments = {}
    if source == "arguments":
        arguments = {"key": KEYS[bits], "iv": IV}
    elif source == "environment":
        environment(key_in_environment(KEYS[bits]))
    elif source == "trusted service":
        service.answers["encrypt-key"] = {"Key": base64.b64encode(KEYS[bits]).decode(), "IV": base64.b64encode(IV).decode()}
        environment(service.environment())
    else:
        by_service = source != "KMS"
        environment(kms.environment(credentials=not by_service) | (service.environment() if by_service else {}))
        environment({"VETURBOIO_CIPHER_HEADER": "1", "VETURBOIO_CIPHER_MODE": f"CTR-{bits}"})

    file, plain = tmp_path / "encrypted", tmp_path / "plain"
    save = veturboio.save_file if saved_as == "safetensors" else veturboio.save_pt
    save(tensors(), file, **arguments)
    save(tensors(), plain, use_cipher=False)

    content, plain_content = file.read_bytes(), plain.read_bytes()
    if with_header:
        assert content.startswith(MAGIC)
        fields = json.loads(content[len(MAGIC) : content.index(b"\0", len(MAGIC))])
        assert fields["mode"] == f"CTR-{bits}"
        assert abs(fields["file_timestamp"] - time.time()) < 60
        key, iv = kms.unwrap(fields["meta_data_key"]), base64.b64decode(fields["iv"])
        assert len(key) == bits // 8
        assert content[HEADER_BYTES:] == openssl(plain_content, key, iv)
    else:
        assert content == openssl(plain_content, KEYS[bits])

    assert_same(veturboio.load(file, **arguments), tensors())
    assert read_shared(veturboio.load_to_shmem(file, **arguments), len(plain_content)) == plain_content
    if saved_as == "safetensors":
        as_tensors = {name: torch.frombuffer(bytearray(value), dtype=torch.uint8) for name, value in arguments.items()}
        assert_same(dict(torch.ops.veturbo.load_file(str(file), **as_tensors)), tensors())
        targets = {name: torch.empty_like(tensor) for name, tensor in tensors().items()}
        veturboio.load(file, state_dict=targets, **arguments)
        assert_same(targets, tensors())
    else:
        targets = {name: torch.empty_like(tensor) for name, tensor in tensors().items()}
        veturboio.load(file, state_dict=targets, **arguments)
        assert_same(targets, tensors())


def test_a_file_of_another_writer(tmp_path, environment, kms):
    plain = tmp_path / "plain"
    veturboio.save_file(tensors(), plain)
    fields = {"mode": "CTR-128", "iv": base64.b64encode(IV).decode(), "meta_data_key": kms.wrap(KEYS[128]), "file_timestamp": 1}
    file = tmp_path / "model"
    file.write_bytes(header_with(**fields) + openssl(plain.read_bytes(), KEYS[128]))
    environment(kms.environment())
    assert_same(veturboio.load(file, use_cipher=True), tensors())
    assert_same(dict(torch.ops.veturbo.load_file(str(file), use_cipher=True)), tensors())


def test_a_counter_that_wraps_around(tmp_path):
    iv = b"\xff" * 15 + b"\xfd"  # 2^128 - 3
    veturboio.save_file(tensors(), tmp_path / "plain")
    veturboio.save_file(tensors(), tmp_path / "encrypted", key=KEYS[256], iv=iv)
    assert (tmp_path / "encrypted").read_bytes() == openssl((tmp_path / "plain").read_bytes(), KEYS[256], iv)
    assert_same(veturboio.load(tmp_path / "encrypted", key=KEYS[256], iv=iv), tensors())


def test_save_model_and_names_that_were_dropped(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    veturboio.save_model(model, tmp_path / "model", key=KEYS[128], iv=IV)
    loaded = veturboio.load(tmp_path / "model", key=KEYS[128], iv=IV)
    assert loaded["0.weight"].data_ptr() == loaded["1.weight"].data_ptr()
    other = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    veturboio.load(tmp_path / "model", state_dict=other.state_dict(), key=KEYS[128], iv=IV)
    assert torch.equal(other[1].weight, model[0].weight)


@pytest.mark.parametrize("options", [{"num_thread": 1}, {"num_thread": 7}, {"use_direct_io": True}, {"enable_fast_mode": False}])
def test_however_it_is_read(tmp_path, options):
    large = {"w": torch.randint(256, (21_000_001,), dtype=torch.uint8)} | tensors()
    veturboio.save_file(large, tmp_path / "model", key=KEYS[128], iv=IV)
    assert_same(veturboio.load(tmp_path / "model", key=KEYS[128], iv=IV, **options), large)


def test_many_small_tensors(tmp_path):
    small = {f"{i:04}": torch.full((i % 50,), i, dtype=torch.int16) for i in range(3000)}
    veturboio.save_file(small, tmp_path / "model", key=KEYS[128], iv=IV)
    assert_same(veturboio.load(tmp_path / "model", key=KEYS[128], iv=IV), small)


def test_saving_leaves_the_tensors_as_they_are(tmp_path):
    mine = tensors()
    veturboio.save_file(mine, tmp_path / "model", key=KEYS[128], iv=IV)
    assert_same(mine, tensors())


def test_in_torchscript(tmp_path):
    @torch.jit.script
    def copy(source: str, target: str, key: torch.Tensor, iv: torch.Tensor) -> int:
        loaded = torch.ops.veturbo.load_file(source, key=key, iv=iv)
        torch.ops.veturbo.save_file(loaded, target, use_cipher=False)
        return len(loaded)

    veturboio.save_file(tensors(), tmp_path / "model", key=KEYS[128], iv=IV)
    key, iv = (torch.frombuffer(bytearray(value), dtype=torch.uint8) for value in (KEYS[128], IV))
    assert copy(str(tmp_path / "model"), str(tmp_path / "plain"), key, iv) == 4
    assert_same(veturboio.load(tmp_path / "plain"), tensors())


def test_convert_encrypts_what_it_writes(tmp_path, environment):
    torch.save(tensors(), tmp_path / "model.pt")
    environment({"VETURBOIO_USE_CIPHER": "1"} | key_in_environment(KEYS[256]))
    arguments = ["-i", str(tmp_path / "model.pt"), "-o", str(tmp_path / "model"), "--validate-result", "--use-direct-io"]
    assert convert.main(arguments) == 0
    assert_same(veturboio.load(tmp_path / "model"), tensors())
    with pytest.raises(veturboio.FileFormatError):
        veturboio.load(tmp_path / "model", use_cipher=False)
    assert convert.main([*arguments[:-1], "--overwrite"]) == 0


# When a file is encrypted.


def test_the_argument_comes_before_the_environment(tmp_path, environment):
    environment({"VETURBOIO_USE_CIPHER": "1"} | key_in_environment(KEYS[128]))
    veturboio.save_file(tensors(), tmp_path / "plain", use_cipher=False)
    assert_same(veturboio.load(tmp_path / "plain", use_cipher=False), tensors())
    with pytest.raises(veturboio.CipherKeyError, match="wrong key"):
        veturboio.load(tmp_path / "plain")
    environment({"VETURBOIO_USE_CIPHER": "0"})
    assert_same(veturboio.load(tmp_path / "plain"), tensors())
    veturboio.save_file(tensors(), tmp_path / "encrypted", use_cipher=True)
    assert (tmp_path / "encrypted").read_bytes() == openssl((tmp_path / "plain").read_bytes(), KEYS[128])


def test_without_a_key_nothing_is_written_plain(tmp_path, environment):
    environment({"VETURBOIO_USE_CIPHER": "1"})
    for save in (veturboio.save_file, veturboio.save_pt):
        with pytest.raises(veturboio.CipherKeyError, match="nobody has the key"):
            save(tensors(), tmp_path / "model")
    with pytest.raises(veturboio.CipherKeyError, match="nobody has the key"):
        veturboio.save_model(torch.nn.Linear(1, 1), tmp_path / "model")
    with pytest.raises(RuntimeError, match="nobody has the key"):
        torch.ops.veturbo.save_file(tensors(), str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_a_header_draws_a_fresh_key_and_iv_each_time(tmp_path, environment, kms):
    environment(kms.environment() | {"VETURBOIO_USE_CIPHER": "1", "VETURBOIO_CIPHER_HEADER": "1"})
    seen = set()
    for _ in range(3):
        veturboio.save_file(tensors(), tmp_path / "model")
        content = (tmp_path / "model").read_bytes()
        fields = json.loads(content[len(MAGIC) : content.index(b"\0", len(MAGIC))])
        seen |= {fields["iv"], kms.unwrap(fields["meta_data_key"])}
    assert len(seen) == 6


def test_a_header_whose_kms_fails_falls_through_to_the_environment(tmp_path, environment, kms):
    environment(kms.environment() | {"VETURBOIO_USE_CIPHER": "1", "VETURBOIO_CIPHER_HEADER": "1"})
    veturboio.save_file(tensors(), tmp_path / "model")
    content = (tmp_path / "model").read_bytes()
    fields = json.loads(content[len(MAGIC) : content.index(b"\0", len(MAGIC))])
    environment({"VETURBOIO_KMS_SECRET_KEY": "another"})
    with pytest.raises(veturboio.CipherKeyError, match=r"the KMS: .*; the trusted service: .*; the environment: VETURBOIO_KEY"):
        veturboio.load(tmp_path / "model")
    environment(key_in_environment(kms.unwrap(fields["meta_data_key"]), base64.b64decode(fields["iv"])))
    assert_same(veturboio.load(tmp_path / "model"), tensors())


def test_a_header_has_the_iv_of_a_given_key(tmp_path, kms, environment):
    environment(kms.environment())
    environment({"VETURBOIO_CIPHER_HEADER": "1"})
    veturboio.save_file(tensors(), tmp_path / "model", use_cipher=True)
    content = (tmp_path / "model").read_bytes()
    key = kms.unwrap(json.loads(content[len(MAGIC) : content.index(b"\0", len(MAGIC))])["meta_data_key"])
    asked = len(kms.requests)
    assert_same(veturboio.load(tmp_path / "model", key=key), tensors())
    assert len(kms.requests) == asked, "nobody else is asked for a key that is given"


def test_the_trusted_service_is_told_the_absolute_path(tmp_path, environment, service, monkeypatch):
    environment(service.environment() | {"POD_NAME": "pod-7"})
    monkeypatch.chdir(tmp_path)
    veturboio.save_file(tensors(), "model", use_cipher=True)
    veturboio.load("file://" + str(tmp_path / "model"), use_cipher=True)
    of_keys = [request.headers for request in service.requests if request.headers["x-datapipe-task-type"] == "encrypt-key"]
    assert [(headers["x-tos-path"], headers["x-encrypt-caller-pod"]) for headers in of_keys] == [
        (str(tmp_path / "model"), "pod-7")
    ] * 2


# Mistakes.


def test_a_wrong_key_is_called_one(tmp_path):
    wrong = bytes(16)
    veturboio.save_file(tensors(), tmp_path / "model", key=KEYS[128], iv=IV)
    veturboio.save_pt(tensors(), tmp_path / "model.pt", key=KEYS[256], iv=IV)
    for file in ("model", "model.pt"):
        for load in (veturboio.load, veturboio.load_to_shmem):
            with pytest.raises(veturboio.CipherKeyError) as caught:
                load(tmp_path / file, key=wrong, iv=IV)
            assert str(caught.value) == (
                f"{tmp_path / file}: wrong key, or not a model file: decrypted with the key from the key argument it is neither "
                "safetensors nor a file of torch.save"
            )
            assert caught.value.filename == str(tmp_path / file)
    with pytest.raises(ValueError, match="wrong key, or not a model file"):
        torch.ops.veturbo.load_file(
            str(tmp_path / "model"), key=torch.zeros(16, dtype=torch.uint8), iv=torch.zeros(16, dtype=torch.uint8)
        )


def test_a_key_of_the_other_size_than_the_header_says(tmp_path, environment):
    fields = {"mode": "CTR-256", "iv": base64.b64encode(IV).decode(), "meta_data_key": "AAAA", "file_timestamp": 1}
    (tmp_path / "model").write_bytes(header_with(**fields) + b"x" * 100)
    with pytest.raises(veturboio.CipherKeyError, match="wrong key: the file is encrypted by CTR-256, the key"):
        veturboio.load(tmp_path / "model", key=KEYS[128])


BAD_ARGUMENTS = {
    "a short key": ({"key": b"x" * 15, "iv": IV}, ValueError, "key has 15 bytes: AES-CTR takes 16 or 32"),
    "an empty key": ({"key": b"", "iv": IV}, ValueError, "key has 0 bytes"),
    "a short iv": ({"key": KEYS[128], "iv": b"x" * 12}, ValueError, "iv has 12 bytes: AES-CTR takes 16"),
    "no iv": ({"key": KEYS[128]}, ValueError, "key is given without iv"),
    "no key": ({"iv": IV}, ValueError, "iv is given without key"),
    "a text": ({"key": "k" * 16, "iv": IV}, TypeError, "key must be bytes, not str"),
    "a key that is not to be used": ({"key": KEYS[128], "iv": IV, "use_cipher": False}, ValueError, "use_cipher is False"),
    "no bool": ({"use_cipher": 1}, TypeError, "use_cipher must be a bool or None, not int"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments(tmp_path, case):
    arguments, kind, message = BAD_ARGUMENTS[case]
    veturboio.save_file(tensors(), tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    for call in (
        lambda: veturboio.load(tmp_path / "model", **arguments),
        lambda: veturboio.load_to_shmem(tmp_path / "model", **arguments),
        lambda: veturboio.save_file(tensors(), tmp_path / "model", **arguments),
        lambda: veturboio.save_pt(tensors(), tmp_path / "model", **arguments),
        lambda: veturboio.save_model(torch.nn.Linear(1, 1), tmp_path / "model", **arguments),
    ):
        with pytest.raises(kind, match=message):
            call()
    assert (tmp_path / "model").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


DAMAGED_HEADERS = {
    "cut short": (header_with(mode="CTR-128")[:1000], "the file ends after 1000 of its 262144 bytes"),
    "without an end": (MAGIC + b"{" * HEADER_BYTES, "its JSON has no end"),
    "of an unknown mode": (header_with(mode="GCM-128"), 'the cipher mode "GCM-128" is unknown'),
    "with an iv that is not base64": (header_with(mode="CTR-128", iv="?"), '"iv" is not base64'),
    "with a short iv": (header_with(mode="CTR-128", iv="AAAA"), '"iv" has 3 bytes, not 16'),
}


@pytest.mark.parametrize("case", DAMAGED_HEADERS)
def test_a_damaged_cipher_header(tmp_path, case):
    content, message = DAMAGED_HEADERS[case]
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(veturboio.FileFormatError, match="damaged cipher header: ") as caught:
        veturboio.load(tmp_path / "model", use_cipher=True)
    assert message in str(caught.value)
    assert caught.value.filename == str(tmp_path / "model")


def test_a_file_that_is_encrypted_and_cut_short(tmp_path):
    veturboio.save_file(tensors(), tmp_path / "model", key=KEYS[128], iv=IV)
    content = (tmp_path / "model").read_bytes()
    (tmp_path / "model").write_bytes(content[:-1])
    with pytest.raises(veturboio.FileFormatError):
        veturboio.load(tmp_path / "model", key=KEYS[128], iv=IV)
    (tmp_path / "model").write_bytes(content[:5])
    with pytest.raises(veturboio.CipherKeyError, match="wrong key, or not a model file"):
        veturboio.load(tmp_path / "model", key=KEYS[128], iv=IV)
    (tmp_path / "model").write_bytes(b"")
    with pytest.raises(veturboio.CipherKeyError, match="wrong key, or not a model file"):
        veturboio.load(tmp_path / "model", key=KEYS[128], iv=IV)


def test_a_header_inside_that_claims_too_much(tmp_path):
    """The parser's own words, where the key is right and the file is not."""
    inner = struct.pack("<Q", 30) + b'{"a": {"dtype": "F99"}} '.ljust(30)
    (tmp_path / "model").write_bytes(openssl(inner, KEYS[128]))
    with pytest.raises(veturboio.FileFormatError, match="a"):
        veturboio.load(tmp_path / "model", key=KEYS[128], iv=IV)


def test_an_encrypted_file_cannot_be_mapped(tmp_path):
    veturboio.save_file(tensors(), tmp_path / "model", key=KEYS[128], iv=IV)
    with pytest.raises(ValueError, match="an encrypted file cannot be mapped into memory: load it without mmap"):
        veturboio.load(tmp_path / "model", key=KEYS[128], iv=IV, mmap=True)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        veturboio.load(tmp_path / "model", use_cipher=True)


def test_no_secret_is_told(tmp_path, environment, kms, capfd):
    secrets = [KEYS[256], KEYS[256].hex().encode(), base64.b64encode(KEYS[256])]
    environment(kms.environment() | {"VETURBOIO_KMS_SECRET_KEY": "an/other+secret"} | key_in_environment(KEYS[256][:24]))
    told = []
    fields = {"mode": "CTR-256", "iv": base64.b64encode(IV).decode(), "meta_data_key": kms.wrap(KEYS[256]), "file_timestamp": 1}
    (tmp_path / "model").write_bytes(header_with(**fields) + b"x" * 100)
    with pytest.raises(veturboio.CipherKeyError, match="nobody has the key") as caught:
        veturboio.load(tmp_path / "model", use_cipher=True)
    told += [repr(caught.value), str(caught.value)]
    with pytest.raises(veturboio.CipherKeyError) as caught:
        veturboio.load(tmp_path / "model", key=KEYS[256])
    told += [repr(caught.value), str(caught.value)]
    veturboio.save_file(tensors(), tmp_path / "good", key=KEYS[256], iv=IV)
    key, iv = (torch.frombuffer(bytearray(value), dtype=torch.uint8) for value in (KEYS[256], IV))
    job = torch.ops.veturbo.start_find_cipher(str(tmp_path / "good"), key=key, iv=iv)
    cipher = job.result()
    told += [repr(cipher), str(cipher), cipher.source()]
    told += list(capfd.readouterr())
    for text in told:
        assert not any(secret in text.encode() for secret in [*secrets, b"an/other+secret", KEYS[256][:24].hex().encode()])


# Reuse of a key and IV.


def warnings_of(save, *arguments, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save(*arguments, **options)
    return [str(warning.message) for warning in caught]


def test_a_key_and_iv_used_again_are_warned_of_once(tmp_path):
    key = os.urandom(16)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert warnings_of(veturboio.save_file, tensors(), first, key=key, iv=IV) == []
    (warning,) = warnings_of(veturboio.save_pt, tensors(), second, key=key, iv=IV)
    assert warning.startswith(f"{second}: the key and IV that encrypt this file have encrypted {first}: ")
    assert "VETURBOIO_CIPHER_HEADER=1" in warning
    assert warnings_of(veturboio.save_file, tensors(), third, key=key, iv=IV) == []
    assert warnings_of(veturboio.save_file, tensors(), third, key=key, iv=IV) == []
    assert warnings_of(veturboio.save_file, tensors(), tmp_path / "fourth", key=key, iv=bytes(16)) == []


def test_a_file_written_again_is_warned_of(tmp_path):
    key = os.urandom(32)
    veturboio.save_file(tensors(), tmp_path / "model")
    (warning,) = warnings_of(veturboio.save_file, tensors(), tmp_path / "model", key=key, iv=IV)
    assert "may have encrypted the one that it replaces" in warning


def test_a_header_needs_no_warning(tmp_path, environment, kms):
    environment(kms.environment() | {"VETURBOIO_CIPHER_HEADER": "1"})
    for _ in range(2):
        assert warnings_of(veturboio.save_file, tensors(), tmp_path / "model", use_cipher=True) == []


# Interruption.


def test_an_interrupt_ends_the_search_for_a_key(tmp_path, environment, service):
    environment(service.environment() | {"VETURBOIO_DATAPIPE_RETRY": "60", "VETURBOIO_DATAPIPE_RETRY_INTERVAL": "2"})
    service.misbehave(status=500)
    (tmp_path / "model").write_bytes(b"x" * 1000)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), 2))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        veturboio.load(tmp_path / "model", use_cipher=True)
    assert time.monotonic() - started < 30  # two minutes without it
    timer.join()
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def num_threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_search_that_is_dropped_ends(tmp_path, environment, service):
    environment(service.environment() | {"VETURBOIO_DATAPIPE_RETRY": "60", "VETURBOIO_DATAPIPE_RETRY_INTERVAL": "2"})
    service.misbehave(status=500)
    (tmp_path / "model").write_bytes(b"x" * 1000)
    threads = num_threads()
    job = torch.ops.veturbo.start_find_cipher(str(tmp_path / "model"), use_cipher=True)
    assert not job.wait(0.05)
    del job
    assert num_threads() <= threads
