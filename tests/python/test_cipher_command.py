"""The command that encrypts and decrypts whole files. What it makes is compared with what the openssl program makes."""

from __future__ import annotations

import base64
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fresh_process import environment

import veturboio
from veturboio import cipher

PIECE = 8 << 20  # what the command moves at a time
HEADER = 262144

KEYS = {16: bytes(range(100, 116)), 32: bytes(range(200, 232))}
IV = bytes.fromhex("00112233445566778899aabbfffffff0")  # carries over 32 bits within any of the files
WRONG_KEY = bytes(16)
KEY_VARIABLES = ("VETURBOIO_KEY", "VETURBOIO_IV", "VETUROIO_KEY", "VETUROIO_IV")
KMS_VARIABLES = ("ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN", "KEYRING_NAME", "KEY_NAME")


@pytest.fixture(autouse=True)
def no_key_of_the_machine(tmp_path, monkeypatch):
    """No source has a key, until a test gives one; and what the command sets in the environment is gone after the test."""
    for name in (*KEY_VARIABLES, "VETURBOIO_USE_CIPHER", "VETURBOIO_CIPHER_MODE", *(f"VETURBOIO_KMS_{x}" for x in KMS_VARIABLES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VETURBOIO_KMS_HOST", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("DATAPIPE_SOCKET_PATH", str(tmp_path / "no-service.sock"))
    monkeypatch.setenv("VETURBOIO_CIPHER_HEADER", "0")


@pytest.fixture(autouse=True)
def no_secret_is_shown(capfd):
    """After every test; what the test itself has read, shown() has checked."""
    yield
    shown(capfd)


def shown(capfd) -> tuple[str, str]:
    """What was printed to stdout and stderr: no secret, in no spelling."""
    out, err = capfd.readouterr()
    check_without_secrets(out + err)
    return out, err


def check_without_secrets(text: str) -> None:
    for secret in (*KEYS.values(), IV, WRONG_KEY):
        for spelling in (secret.hex(), secret.hex().upper(), base64.b64encode(secret).decode(), repr(secret), str(list(secret))):
            assert spelling not in text


@pytest.fixture
def env_key(monkeypatch):
    set_environment_key(monkeypatch, KEYS[16])


def set_environment_key(monkeypatch, key: bytes) -> None:
    monkeypatch.setenv("VETURBOIO_KEY", base64.b64encode(key).decode())
    monkeypatch.setenv("VETURBOIO_IV", base64.b64encode(IV).decode())


@pytest.fixture
def key_files(tmp_path):
    """Arguments that give the 128-bit key and the IV in files."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "key").write_bytes(KEYS[16])
    (folder / "iv").write_bytes(IV)
    return ["--key-file", folder / "key", "--iv-file", folder / "iv"]


@pytest.fixture
def folder(tmp_path):
    """Where the files of a test are, and nothing else."""
    path = tmp_path / "files"
    path.mkdir()
    return path


def run(*arguments: object) -> int:
    return cipher.main([os.fsdecode(argument) if isinstance(argument, bytes) else str(argument) for argument in arguments])


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def safetensors_of(size: int) -> bytes:
    """A safetensors file of one tensor and `size` bytes in all."""
    header = b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}'
    header_bytes = 96
    count = size - 8 - header_bytes
    text = (header % (count, count)).ljust(header_bytes)
    return header_bytes.to_bytes(8, "little") + text + random.Random(size).randbytes(count)


def by_openssl(plain: bytes, key: bytes, iv: bytes = IV) -> bytes:
    command = ["openssl", "enc", f"-aes-{8 * len(key)}-ctr", "-K", key.hex(), "-iv", iv.hex()]
    return subprocess.run(command, input=plain, capture_output=True, check=True).stdout


def cipher_header(mode: str = "CTR-128", *, iv: bytes = IV, **more: object) -> bytes:
    fields = {
        "mode": mode,
        "iv": base64.b64encode(iv).decode(),
        "meta_data_key": base64.b64encode(b"wrapped").decode(),
        "file_timestamp": 1714564800,
        **more,
    }
    return (b"Byte3ncryptM0del" + json.dumps(fields).encode()).ljust(HEADER, b"\0")


@contextmanager
def limited(what: int, size: int):
    limits = resource.getrlimit(what)
    resource.setrlimit(what, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, limits)


@pytest.mark.parametrize("key", KEYS.values(), ids=["aes-128", "aes-256"])
@pytest.mark.parametrize("size", [1000, 65536, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5])
def test_encrypts_and_decrypts_as_openssl_does(folder, monkeypatch, key, size):
    set_environment_key(monkeypatch, key)
    plain = safetensors_of(size)
    (folder / "in").write_bytes(plain)
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out") == 0
    assert (folder / "out").read_bytes() == by_openssl(plain, key)
    assert run("decrypt", "-i", folder / "out", "-o", folder / "back") == 0
    assert (folder / "back").read_bytes() == plain


@pytest.mark.usefixtures("env_key")
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17])
def test_encrypts_what_is_no_model_with_a_warning_and_does_not_decrypt_it(folder, capfd, size):
    plain = bytes(range(size))
    (folder / "in").write_bytes(plain)
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out") == 0
    assert (folder / "out").read_bytes() == by_openssl(plain, KEYS[16])
    err = shown(capfd)[1]
    assert err.startswith(f"veturboio.cipher: warning: {folder}/in: is neither safetensors nor a file of torch.save")
    assert run("decrypt", "-i", folder / "out", "-o", folder / "back") == 1
    assert "wrong key, or not a model file" in shown(capfd)[1]
    assert names_in(folder) == ["in", "out"]


@pytest.mark.usefixtures("env_key")
@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_a_file_of_torch_save_comes_back(folder, capfd, zip_format):
    torch.save({"w": torch.arange(5.0)}, folder / "in.pt", _use_new_zipfile_serialization=zip_format)
    assert run("encrypt", "-i", folder / "in.pt", "-o", folder / "out.pt") == 0
    assert run("decrypt", "-i", folder / "out.pt", "-o", folder / "back.pt") == 0
    assert (folder / "back.pt").read_bytes() == (folder / "in.pt").read_bytes()
    assert shown(capfd)[1] == ""
    assert run("info", "-i", folder / "out.pt", "--find-key") == 0
    assert shown(capfd)[0].splitlines()[-1] == "plain format: torch"


def test_the_library_loads_what_it_encrypts_and_it_decrypts_what_the_library_saves(folder, key_files):
    tensors = {"w": torch.arange(7)}
    veturboio.save_file(tensors, folder / "plain")
    assert run("encrypt", "-i", folder / "plain", "-o", folder / "a", *key_files) == 0
    assert torch.equal(veturboio.load(folder / "a", key=KEYS[16], iv=IV)["w"], tensors["w"])
    veturboio.save_file(tensors, folder / "b", key=KEYS[16], iv=IV)
    assert run("decrypt", "-i", folder / "b", "-o", folder / "back", *key_files) == 0
    assert (folder / "back").read_bytes() == (folder / "plain").read_bytes()


@pytest.mark.usefixtures("env_key")
def test_says_what_it_did_and_whose_key_it_was(folder, capfd):
    (folder / "in").write_bytes(safetensors_of(1000))
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out") == 0
    out, err = shown(capfd)
    assert out.startswith(f"{folder}/in -> {folder}/out: encrypted with the key from the environment, 0.000 GB in ")
    assert err == ""
    assert run("decrypt", "-i", folder / "out", "-o", folder / "back") == 0
    assert shown(capfd)[0].startswith(f"{folder}/out -> {folder}/back: decrypted with the key from the environment, 0.000 GB in ")


@pytest.mark.usefixtures("env_key")
def test_a_path_need_not_be_text(folder, capfd):
    name = os.fsencode(folder) + b"/\xff"
    Path(os.fsdecode(name)).write_bytes(safetensors_of(1000))
    assert run("encrypt", "-i", name, "-o", name + b"2") == 0
    assert run("info", "-i", name + b"2", "--find-key") == 0
    assert "\\udcff -> " in shown(capfd)[0]


@pytest.mark.parametrize("spelling", ["raw", "base64", "base64 and a newline"])
@pytest.mark.parametrize("key", KEYS.values(), ids=["aes-128", "aes-256"])
def test_takes_the_key_from_files_before_any_other(folder, monkeypatch, key, spelling):
    set_environment_key(monkeypatch, WRONG_KEY)
    for name, secret in ("key", key), ("iv", IV):
        text = secret if spelling == "raw" else base64.b64encode(secret)
        (folder / name).write_bytes(text + (b"\n" if "newline" in spelling else b""))
    plain = safetensors_of(1000)
    (folder / "in").write_bytes(plain)
    files = ["--key-file", folder / "key", "--iv-file", folder / "iv"]
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out", *files) == 0
    assert (folder / "out").read_bytes() == by_openssl(plain, key)
    assert run("decrypt", "-i", folder / "out", "-o", folder / "back", *files) == 0
    assert (folder / "back").read_bytes() == plain


@pytest.mark.parametrize(
    ("option", "content", "text"),
    [
        ("--key-file", b"", "is base64 text of 0 bytes: 16 or 32 are needed, raw or as base64 text"),
        ("--key-file", KEYS[32][:24], "has 24 bytes, and is no base64 text: 16 or 32 are needed, raw or as base64 text"),
        ("--key-file", KEYS[16][:15], "has 15 bytes, and is no base64 text: 16 or 32 are needed, raw or as base64 text"),
        ("--key-file", base64.b64encode(KEYS[16][:15]), "is base64 text of 15 bytes: 16 or 32 are needed, raw or as base64 text"),
        ("--key-file", KEYS[16].hex().encode() + b"\n", "is base64 text of 24 bytes: 16 or 32 are needed, raw or as base64 text"),
        ("--key-file", bytes(5000), "has more than 4096 bytes: 16 or 32 are needed, raw or as base64 text"),
        ("--iv-file", IV[:12], "has 12 bytes, and is no base64 text: 16 are needed, raw or as base64 text"),
        ("--iv-file", base64.b64encode(KEYS[32]), "is base64 text of 32 bytes: 16 are needed, raw or as base64 text"),
    ],
)
@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
def test_a_key_file_of_a_wrong_length_is_refused(folder, key_files, capfd, command, option, content, text):
    file = key_files[key_files.index(option) + 1]
    file.write_bytes(content)
    (folder / "in").write_bytes(safetensors_of(1000))
    assert run(command, "-i", folder / "in", "-o", folder / "out", *key_files) == 1
    err = shown(capfd)[1]
    assert err == f"veturboio.cipher: {option} {file}: {text}\n"
    assert content == b"" or content.decode("latin-1") not in err
    assert names_in(folder) == ["in"]


def test_a_key_file_may_be_a_pipe(folder, key_files):
    plain = safetensors_of(1000)
    (folder / "in").write_bytes(plain)
    read_end, write_end = os.pipe()
    os.write(write_end, base64.b64encode(KEYS[16]) + b"\n")
    os.close(write_end)
    key_files[1] = f"/dev/fd/{read_end}"
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out", *key_files) == 0
    os.close(read_end)
    assert (folder / "out").read_bytes() == by_openssl(plain, KEYS[16])


def test_a_key_file_that_is_missing_is_named(folder, key_files, capfd):
    key_files[1].unlink()
    (folder / "in").write_bytes(safetensors_of(1000))
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out", *key_files) == 1
    assert f"veturboio.cipher: [Errno 2] No such file or directory: '{key_files[1]}'\n" == shown(capfd)[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["encrypt", "-i", "a", "-o", "b", "--key-file", "k"], "--key-file needs --iv-file"),
        (["encrypt", "-i", "a", "-o", "b", "--iv-file", "k"], "--iv-file needs --key-file"),
        (["decrypt", "-i", "a", "-o", "b", "--iv-file", "k"], "--iv-file needs --key-file"),
        (["encrypt", "-i", "a", "-o", "b", "--key-file", "k", "--iv-file", "k", "--header"], "--header draws a fresh key"),
        (["info", "-i", "a", "--key-file", "k"], "--key-file needs --find-key"),
        (["encrypt", "-i", "a"], "the following arguments are required: -o/--output"),
        (["decrypt", "-i", "a", "-o", "b", "--key", "k"], "unrecognized arguments: --key k"),
        (["decrypt", "-i", "a", "-o", "b", "--header"], "unrecognized arguments: --header"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage_has_a_status_of_its_own(capfd, arguments, text):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert text in shown(capfd)[1]


@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
def test_overwrites_only_when_told_to(folder, env_key, capfd, command):
    plain = safetensors_of(1000)
    texts = {"encrypt": plain, "decrypt": by_openssl(plain, KEYS[16])}
    (folder / "in").write_bytes(texts.pop(command))
    (folder / "out").write_text("precious")
    assert run(command, "-i", folder / "in", "-o", folder / "out") == 1
    assert shown(capfd)[1] == f"veturboio.cipher: {folder}/out exists: pass --overwrite to replace it\n"
    assert (folder / "out").read_text() == "precious"
    assert run(command, "-i", folder / "in", "-o", folder / "out", "--overwrite") == 0
    assert (folder / "out").read_bytes() == next(iter(texts.values()))
    assert names_in(folder) == ["in", "out"]


def test_warns_of_a_key_that_may_have_encrypted_the_file_which_is_replaced(folder, monkeypatch, capfd):
    set_environment_key(monkeypatch, b"of this test....")  # the warning comes once for a key
    (folder / "in").write_bytes(safetensors_of(1000))
    (folder / "out").write_bytes(b"")
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out", "--overwrite") == 0
    err = shown(capfd)[1]
    assert err.startswith(f"veturboio.cipher: warning: {folder}/out: the key and IV that encrypt this file may have encrypted")
    assert err.count("\n") == 1


def test_input_and_output_may_be_one_file(folder, env_key, capfd):
    plain = safetensors_of(2 * PIECE + 5)
    file = folder / "model"
    file.write_bytes(plain)
    file.chmod(0o640)
    assert run("encrypt", "-i", file, "-o", file) == 1
    assert "pass --overwrite" in shown(capfd)[1]
    assert run("encrypt", "-i", file, "-o", file, "--overwrite") == 0
    assert file.read_bytes() == by_openssl(plain, KEYS[16])
    assert run("decrypt", "-i", file, "-o", file, "--overwrite") == 0
    assert file.read_bytes() == plain
    assert names_in(folder) == ["model"]
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("command", ["encrypt", "decrypt", "info"])
def test_a_missing_input_is_named(folder, env_key, capfd, command):
    output = [] if command == "info" else ["-o", folder / "out"]
    assert run(command, "-i", folder / "in", *output) == 1
    assert shown(capfd) == ("", f"veturboio.cipher: [Errno 2] No such file or directory: '{folder}/in'\n")
    assert names_in(folder) == []


def test_a_missing_folder_is_named(folder, env_key, capfd):
    (folder / "in").write_bytes(safetensors_of(1000))
    assert run("encrypt", "-i", folder / "in", "-o", folder / "missing" / "out") == 1
    assert f"there is no directory {folder}/missing" in shown(capfd)[1]


@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
def test_without_a_key_nothing_is_written(folder, capfd, command):
    (folder / "in").write_bytes(by_openssl(safetensors_of(1000), KEYS[16]))
    assert run(command, "-i", folder / "in", "-o", folder / "out") == 1
    out, err = shown(capfd)
    assert out == ""
    assert err.startswith(f"veturboio.cipher: {folder}/{'out' if command == 'encrypt' else 'in'}: ")
    assert names_in(folder) == ["in"]


def test_a_wrong_key_is_refused(folder, monkeypatch, capfd):
    (folder / "in").write_bytes(by_openssl(safetensors_of(1000), KEYS[16]))
    set_environment_key(monkeypatch, WRONG_KEY)
    assert run("decrypt", "-i", folder / "in", "-o", folder / "out") == 1
    with pytest.raises(veturboio.CipherKeyError) as caught:
        veturboio.load(folder / "in", use_cipher=True)
    assert shown(capfd)[1] == f"veturboio.cipher: {caught.value}\n"
    assert "wrong key" in str(caught.value)
    assert names_in(folder) == ["in"]


def test_says_that_a_file_to_decrypt_may_be_plain(folder, env_key, capfd):
    (folder / "in").write_bytes(safetensors_of(1000))
    assert run("decrypt", "-i", folder / "in", "-o", folder / "out") == 1
    err = shown(capfd)[1]
    assert "wrong key" in err
    assert err.endswith("The file is a model as it stands: it may not be encrypted\n")
    assert names_in(folder) == ["in"]


def test_a_file_is_not_encrypted_twice_with_one_key_which_would_decrypt_it(folder, env_key, capfd):
    (folder / "in").write_bytes(by_openssl(safetensors_of(1000), KEYS[16]))
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out") == 1
    assert shown(capfd)[1] == (
        f"veturboio.cipher: {folder}/in: is encrypted already, with this key: encrypting it again would decrypt it\n"
    )
    assert names_in(folder) == ["in"]


@pytest.mark.parametrize(("mode", "key_bytes"), [("CTR-128", 16), ("CTR-256", 32)])
def test_decrypts_and_tells_of_a_file_with_a_header(folder, capfd, mode, key_bytes):
    # Its key comes from a file here; the IV is the header's.
    plain = safetensors_of(PIECE + 3)
    (folder / "in").write_bytes(cipher_header(mode) + by_openssl(plain, KEYS[key_bytes]))
    (folder / "key").write_bytes(KEYS[key_bytes])
    assert run("info", "-i", folder / "in", "--find-key", "--key-file", folder / "key") == 0
    assert shown(capfd)[0].splitlines() == [
        f"file: {folder}/in",
        "cipher header: yes",
        f"mode: {mode}",
        "timestamp: 2024-05-01T12:00:00Z",
        f"plain size: {len(plain)} bytes",
        "key source: the key argument",
        "plain format: safetensors, number of tensors: 1",
    ]
    assert run("decrypt", "-i", folder / "in", "-o", folder / "out", "--key-file", folder / "key") == 0
    assert (folder / "out").read_bytes() == plain


def test_tells_of_a_file_without_a_header(folder, monkeypatch, capfd):
    (folder / "in").write_bytes(by_openssl(safetensors_of(1000), KEYS[32]))
    lines = [f"file: {folder}/in", "cipher header: no", "plain size: 1000 bytes"]
    assert run("info", "-i", folder / "in") == 0
    assert shown(capfd)[0].splitlines() == lines
    set_environment_key(monkeypatch, KEYS[32])
    assert run("info", "-i", folder / "in", "--find-key") == 0
    assert shown(capfd)[0].splitlines() == [
        *lines,
        "key source: the environment",
        "plain format: safetensors, number of tensors: 1",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "1969-12-31T23:59:59Z"),
        (0, "unknown"),
        (1 << 62, "4611686018427387904 seconds after 1970, no date of a calendar"),
    ],
)
def test_any_timestamp_is_shown(folder, capfd, seconds, text):
    (folder / "in").write_bytes(cipher_header(file_timestamp=seconds))
    assert run("info", "-i", folder / "in") == 0
    assert f"timestamp: {text}\nplain size: 0 bytes\n" in shown(capfd)[0]


def test_a_key_of_the_wrong_size_for_the_header_is_refused(folder, capfd):
    (folder / "in").write_bytes(cipher_header("CTR-256") + by_openssl(safetensors_of(1000), KEYS[16]))
    (folder / "key").write_bytes(KEYS[16])
    assert run("decrypt", "-i", folder / "in", "-o", folder / "out", "--key-file", folder / "key") == 1
    assert "wrong key: the file is encrypted by CTR-256, the key from the key argument has 128 bits" in shown(capfd)[1]
    assert names_in(folder) == ["in", "key"]


def test_a_file_without_a_header_needs_an_iv(folder, key_files, capfd):
    (folder / "in").write_bytes(by_openssl(safetensors_of(1000), KEYS[16]))
    assert run("decrypt", "-i", folder / "in", "-o", folder / "out", *key_files[:2]) == 1
    assert shown(capfd)[1] == (
        f"veturboio.cipher: {folder}/in: has no cipher header, which would hold the IV: pass --iv-file too\n"
    )


def test_a_file_with_a_header_is_not_encrypted_again(folder, env_key, capfd):
    (folder / "in").write_bytes(cipher_header() + by_openssl(safetensors_of(1000), KEYS[16]))
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out") == 1
    assert shown(capfd)[1] == f"veturboio.cipher: {folder}/in: is encrypted already: it has a cipher header, mode CTR-128\n"
    assert names_in(folder) == ["in"]


@pytest.mark.parametrize("command", ["encrypt", "decrypt", "info"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (cipher_header()[:1000], "damaged cipher header: the file ends after 1000 of its 262144 bytes"),
        (cipher_header("CTR-512"), 'damaged cipher header: the cipher mode "CTR-512" is unknown'),
        (cipher_header(iv=IV[:12]), 'damaged cipher header: "iv" has 12 bytes, not 16'),
    ],
    ids=["cut short", "mode", "iv"],
)
def test_a_damaged_header_is_told(folder, env_key, capfd, command, content, text):
    (folder / "in").write_bytes(content)
    output = [] if command == "info" else ["-o", folder / "out"]
    assert run(command, "-i", folder / "in", *output) == 1
    out, err = shown(capfd)
    assert out == ""
    assert err.startswith(f"veturboio.cipher: {folder}/in: {text}")
    assert names_in(folder) == ["in"]


def test_a_damaged_model_is_told_by_info(folder, env_key, capfd):
    (folder / "in").write_bytes(by_openssl(safetensors_of(1000)[:-1], KEYS[16]))
    assert run("info", "-i", folder / "in", "--find-key") == 1
    out, err = shown(capfd)
    assert out.endswith("key source: the environment\n")
    assert err.startswith(f"veturboio.cipher: {folder}/in: ")


def test_header_and_no_header_go_before_the_environment(folder, env_key, monkeypatch, capfd):
    plain = safetensors_of(1000)
    (folder / "in").write_bytes(plain)
    monkeypatch.setenv("VETURBOIO_CIPHER_HEADER", "1")
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out", "--no-header") == 0
    assert (folder / "out").read_bytes() == by_openssl(plain, KEYS[16])
    (folder / "out").unlink()
    # There is no KMS to wrap the fresh key: that the key in the environment was not taken shows that one was wanted.
    monkeypatch.setenv("VETURBOIO_CIPHER_HEADER", "0")
    shown(capfd)
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out", "--header") == 1
    assert shown(capfd)[1].startswith(f"veturboio.cipher: {folder}/out: ")
    assert names_in(folder) == ["in"]


def test_a_large_file_is_never_in_memory(tmp_path, shm_path, env_key):
    size = 300 << 20
    head = safetensors_of(1000)
    tensors = size - 8 - 96
    plain = tmp_path / "plain"
    with plain.open("wb") as out:
        out.write((96).to_bytes(8, "little"))
        out.write((b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (tensors, tensors)).ljust(96))
        out.write(head)
        out.truncate(size)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with limited(resource.RLIMIT_AS, pages * resource.getpagesize() + (160 << 20)):
        assert run("encrypt", "-i", plain, "-o", shm_path / "encrypted") == 0
        assert run("decrypt", "-i", shm_path / "encrypted", "-o", shm_path / "back") == 0
    assert (shm_path / "back").stat().st_size == size
    with plain.open("rb") as a, (shm_path / "back").open("rb") as b:
        for offset in (0, size // 2, size - 4096):
            a.seek(offset)
            b.seek(offset)
            assert a.read(4096) == b.read(4096)


@pytest.mark.parametrize("old", [True, False], ids=["old output", "no output"])
def test_an_interrupt_leaves_the_folder_as_it_was(folder, env_key, monkeypatch, capfd, old):
    @contextmanager
    def pressed_after_the_first_piece(title):
        def report(done, total):
            assert names_in(folder) != names  # it is being written
            raise KeyboardInterrupt

        yield report

    (folder / "in").write_bytes(safetensors_of(2 * PIECE))
    if old:
        (folder / "out").write_text("precious")
    names = names_in(folder)
    monkeypatch.setattr(cipher, "progress_bar", pressed_after_the_first_piece)
    assert run("encrypt", "-i", folder / "in", "-o", folder / "out", "--overwrite") == 130
    assert shown(capfd) == ("", "veturboio.cipher: interrupted\n")
    assert names_in(folder) == names
    assert not old or (folder / "out").read_text() == "precious"


def test_ctrl_c_ends_the_program_and_leaves_nothing(folder, shm_path, env_key):
    with (folder / "in").open("wb") as out:
        out.truncate(16 << 30)  # of zeros, which take no room on the disk
    command = [sys.executable, "-m", "veturboio.cipher", "encrypt", "-i", folder / "in", "-o", shm_path / "out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    with process:
        while process.poll() is None and names_in(shm_path) == []:
            time.sleep(0.01)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    check_without_secrets(err)
    assert err.splitlines()[-1] == "veturboio.cipher: interrupted"
    assert names_in(shm_path) == []


def test_a_failed_write_leaves_the_old_output_and_nothing_beside_it(folder, env_key, capfd):
    (folder / "in").write_bytes(safetensors_of(2 * PIECE))
    (folder / "out").write_text("precious")
    with limited(resource.RLIMIT_FSIZE, PIECE + 1000):
        assert run("encrypt", "-i", folder / "in", "-o", folder / "out", "--overwrite") == 1
    assert "File too large" in shown(capfd)[1]
    assert (folder / "out").read_text() == "precious"
    assert names_in(folder) == ["in", "out"]


def test_runs_as_a_program_of_its_own(folder, key_files):
    plain = safetensors_of(1000)
    (folder / "in").write_bytes(by_openssl(plain, KEYS[16]))
    command = [sys.executable, "-m", "veturboio.cipher", "decrypt", "-i", folder / "in", "-o", folder / "out", *key_files]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    check_without_secrets(done.stdout)
    assert (folder / "out").read_bytes() == plain


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("encrypt", ["--input", "--output", "--overwrite", "--header", "--no-header", "--key-file", "--iv-file"]),
        ("decrypt", ["--input", "--output", "--overwrite", "--key-file", "--iv-file"]),
        ("info", ["--input", "--find-key", "--key-file", "--iv-file"]),
    ],
)
def test_explains_its_options(capfd, command, options):
    with pytest.raises(SystemExit) as caught:
        run(command, "--help")
    assert caught.value.code == 0
    out = shown(capfd)[0]
    for option in options:
        assert option in out
