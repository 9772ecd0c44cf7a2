"""The command that fetches the client library of SFCS: what it takes, and that a failure leaves everything as it was."""

from __future__ import annotations

import ctypes
import hashlib
import http.server
import io
import os
import platform
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fresh_process import environment

from veturboio import get_libcfs
from veturboio._elf import ElfError, SharedLibrary
from veturboio.get_libcfs import NEEDED_FUNCTIONS, OPTIONAL_FUNCTION

ROOT = Path(__file__).parents[2]
OLD = b"the library that was there"
ALL = [*NEEDED_FUNCTIONS, OPTIONAL_FUNCTION]
ADVICE = "Download it elsewhere and give it by --src FILE, or name it with VETURBOIO_LIBCFS"


@pytest.fixture(scope="session")
def make_library(tmp_path_factory):
    """Makes a library with these functions, of these flags and more code, once."""
    folder = tmp_path_factory.mktemp("libraries")
    made: dict[object, bytes] = {}

    def make(
        functions=tuple(ALL), *flags: str, code: str = "", kind: tuple[str, ...] = ("-shared", "-fPIC", "-nostdlib")
    ) -> bytes:
        key = (tuple(functions), flags, code, kind)
        if key not in made:
            source = "\n".join([*(f"int {name}(void) {{ return 0; }}" for name in functions), code, ""])
            out = folder / str(len(made))
            command = ["gcc", "-x", "c", "-", *kind, *flags, "-o", str(out)]
            subprocess.run(command, input=source, text=True, check=True, capture_output=True, cwd=folder)
            made[key] = out.read_bytes()
        return made[key]

    return make


@pytest.fixture(scope="session")
def library(make_library) -> bytes:
    return make_library()


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("VETURBOIO_LIBCFS", raising=False)


@pytest.fixture
def folder(tmp_path):
    """Where the library goes, and an older one is."""
    path = tmp_path / "lib"
    path.mkdir()
    (path / "libcloudfs.so").write_bytes(OLD)
    return path


@pytest.fixture
def run(folder, capsys):
    """Runs the command on a source and returns its status and what it printed."""

    def run(source: object, *more: str) -> tuple[int, str, str]:
        status = get_libcfs.main(["--src", str(source), "--dst", str(folder / "libcloudfs.so"), *more])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refuse(run, folder):
    """Runs the command on a source that must be refused, and returns the reason."""

    def refuse(source: object) -> str:
        status, out, err = run(source)
        assert (status, out) == (1, "")
        assert err.startswith("veturboio.get_libcfs: ")
        assert err.count("\n") == 1
        check_untouched(folder)
        return err.removeprefix("veturboio.get_libcfs: ").rstrip("\n")

    return refuse


def check_untouched(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["libcloudfs.so"]
    assert (folder / "libcloudfs.so").read_bytes() == OLD


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.answers[self.path](self)

    def do_CONNECT(self) -> None:
        self.server.asked.append(f"CONNECT {self.path}")
        self.send_error(403)

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """Answers what a test tells it to, and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[str] = []
        self.scheme = "http"
        self.closing = threading.Event()

    def url(self, path: str = "/libcloudfs.so", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.server_address[1]}{path}"

    def serve(self, body: bytes, path: str = "/libcloudfs.so", **headers: str) -> str:
        self.answers[path] = lambda handler: handler.reply(body, **headers)
        return self.url(path)

    def redirect(self, to: str, path: str = "/moved") -> str:
        self.answers[path] = lambda handler: handler.reply(b"it is elsewhere", 302, Location=to)
        return self.url(path)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that has gone away, as is right in these tests


def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    yield from running(Server())


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "certificate.pem"


@pytest.fixture
def tls_server(certificate) -> Iterator[Server]:
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = "https"
    yield from running(server)


def test_the_needed_functions_are_those_that_the_header_declares():
    header = re.sub("//.*", "", (ROOT / "csrc/core/storage/sfcs/cloudfs.h").read_text())
    assert set(re.findall(r"\b(cfs\w+)\(", header)) == set(ALL)
    assert len(set(ALL)) == len(ALL)


def test_gets_the_library_from_a_url_and_says_what_it_is(server, run, folder, library):
    status, out, err = run(server.serve(library))
    file = folder / "libcloudfs.so"
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{file}: {len(library)} bytes, SHA-256 {hashlib.sha256(library).hexdigest()}",
        "cfsSetCredentials: yes",
        f"To use it, set VETURBOIO_LIBCFS={file}",
    ]
    assert file.read_bytes() == library
    assert [path.name for path in folder.iterdir()] == ["libcloudfs.so"]
    assert ctypes.CDLL(str(file)).cfsNewBuilder() == 0


@pytest.mark.parametrize("form", ["path", "file:", "file://localhost"])
def test_gets_the_library_from_a_file(tmp_path, run, folder, library, form):
    source = tmp_path / "a file"
    source.write_bytes(library)
    prefix = "" if form == "path" else form if "//" in form else "file://"
    assert run(f"{prefix}{source}" if form == "path" else f"{prefix}{source}".replace(" ", "%20"))[0] == 0
    assert (folder / "libcloudfs.so").read_bytes() == library


def test_a_pipe_will_do(run, folder, library):
    read_end, write_end = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(write_end, library), os.close(write_end)))
    writer.start()
    assert run(f"/dev/fd/{read_end}")[0] == 0
    writer.join()
    os.close(read_end)
    assert (folder / "libcloudfs.so").read_bytes() == library


def test_the_new_library_may_be_the_old_one(run, folder, library):
    (folder / "libcloudfs.so").write_bytes(library)
    assert run(folder / "libcloudfs.so")[0] == 0
    assert (folder / "libcloudfs.so").read_bytes() == library


def test_processes_that_use_the_old_library_keep_it(tmp_path, run, folder, library):
    (tmp_path / "new").write_bytes(library)
    with (folder / "libcloudfs.so").open("rb") as old:
        assert run(tmp_path / "new")[0] == 0
        assert old.read() == OLD


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o002, 0o755)])
def test_its_mode_is_that_of_a_program(tmp_path, run, folder, library, umask, mode):
    (tmp_path / "new").write_bytes(library)
    before = os.umask(umask)
    try:
        assert run(tmp_path / "new")[0] == 0
    finally:
        os.umask(before)
    assert (folder / "libcloudfs.so").stat().st_mode & 0o7777 == mode


def test_by_default_it_goes_into_the_package_whose_folder_is_made(tmp_path, monkeypatch, capsys, library):
    assert Path(get_libcfs.__file__).parent / "lib" / "libcloudfs.so" == get_libcfs.DEFAULT_DESTINATION
    monkeypatch.setattr(get_libcfs, "DEFAULT_DESTINATION", tmp_path / "lib" / "libcloudfs.so")
    (tmp_path / "new").write_bytes(library)
    assert get_libcfs.main(["--src", str(tmp_path / "new")]) == 0
    assert (tmp_path / "lib" / "libcloudfs.so").read_bytes() == library
    assert len(capsys.readouterr().out.splitlines()) == 2  # it is found there: nothing is to be set
    monkeypatch.setenv("VETURBOIO_LIBCFS", "/elsewhere/libcloudfs.so")
    assert get_libcfs.main(["--src", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.endswith("\nIt is not used while VETURBOIO_LIBCFS names /elsewhere/libcloudfs.so\n")


def test_no_other_folder_is_made(tmp_path, library, capsys):
    (tmp_path / "new").write_bytes(library)
    assert get_libcfs.main(["--src", str(tmp_path / "new"), "--dst", str(tmp_path / "lib" / "a.so")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert get_libcfs.main(["--src", str(tmp_path / "new"), "--dst", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"veturboio.get_libcfs: {tmp_path} is a folder: give the name of a file in it\n"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("arguments", [["--src", ""], ["--dst", ""], ["--source", "x"], ["x"]])
def test_wrong_usage_has_a_status_of_its_own(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        get_libcfs.main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m veturboio.get_libcfs" in capsys.readouterr().err


# What is not the library.


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE HTML><title>Not here</title>" + bytes(100), "it seems to be an HTML page"),
        (b"\xef\xbb\xbf<html>", "it seems to be an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "it seems to be an XML document"),
        (b'{"Code":"AccessDenied"}', "it seems to be a JSON document"),
        (b"\x1f\x8b\x08\x00", "it seems to be a gzip archive"),
        (b"PK\x03\x04", "it seems to be a zip archive"),
        (b"!<arch>\nx/", "it seems to be a static library (.a)"),
        (b"Not found", "it begins with b'Not found'"),
        (b"\x7fEL", "it begins with b'\\x7fEL'"),
    ],
)
def test_says_what_it_is_that_is_no_library(server, refuse, content, text):
    url = server.serve(content)
    assert refuse(url) == f"{url}: is not a shared library: {text}"


@pytest.mark.parametrize(
    ("functions", "flags", "code", "missing"),
    [
        (NEEDED_FUNCTIONS[1:], (), "", NEEDED_FUNCTIONS[:1]),
        (NEEDED_FUNCTIONS[:4], (), "", NEEDED_FUNCTIONS[4:]),
        ([], (), "int unrelated(void) { return 0; }", NEEDED_FUNCTIONS),
        ([], (), "", NEEDED_FUNCTIONS),
        (NEEDED_FUNCTIONS, ("-fvisibility=hidden",), "", NEEDED_FUNCTIONS),
        (NEEDED_FUNCTIONS[1:], (), "int cfsGetLastError = 1;", NEEDED_FUNCTIONS[:1]),
        (NEEDED_FUNCTIONS[1:], (), "static int cfsGetLastError(void) { return 0; }", NEEDED_FUNCTIONS[:1]),
        (NEEDED_FUNCTIONS[1:], (), "int cfsGetLastError(void); int f(void) { return cfsGetLastError(); }", NEEDED_FUNCTIONS[:1]),
        (
            NEEDED_FUNCTIONS[1:],
            (),
            "int xcfsGetLastError(void) { return 0; } int cfsGetLastErrorx(void) {}",
            NEEDED_FUNCTIONS[:1],
        ),
    ],
    ids=["one", "many", "other", "empty", "hidden", "variable", "static", "undefined", "similar"],
)
def test_lists_all_the_functions_that_it_lacks(tmp_path, refuse, make_library, functions, flags, code, missing):
    source = tmp_path / "source"
    source.write_bytes(make_library(functions, *flags, code=code))
    assert refuse(source) == f"{source}: is not the library that is needed: it lacks {', '.join(missing)}"


def test_only_says_that_it_lacks_the_credentials_function(tmp_path, run, make_library):
    (tmp_path / "source").write_bytes(make_library(NEEDED_FUNCTIONS))
    status, out, err = run(tmp_path / "source")
    assert (status, err) == (0, "")
    assert out.splitlines()[1] == "cfsSetCredentials: no, this is an older library"


@pytest.mark.parametrize(
    "form",
    ["-Wl,--hash-style=sysv", "-Wl,--hash-style=gnu", "-Wl,--hash-style=both", "-Wl,-Bsymbolic", "-Wl,--strip-all", "versions"],
)
def test_takes_a_library_of_any_make(tmp_path, run, make_library, form):
    flags = [form]
    if form == "versions":
        script = tmp_path / "versions"
        script.write_text("FIRST { global: cfsN*; }; SECOND { global: *; } FIRST;")
        flags = [f"-Wl,--version-script={script}"]
    (tmp_path / "source").write_bytes(make_library(ALL, *flags, code="void other(void); void f(void) { other(); }"))
    status, out, _ = run(tmp_path / "source")
    assert status == 0
    assert "cfsSetCredentials: yes" in out


def test_takes_a_library_without_section_headers(tmp_path, run, library):
    (tmp_path / "source").write_bytes(patched(library, {0x28: bytes(8), 0x3C: bytes(4)}))
    assert run(tmp_path / "source")[0] == 0


def patched(content: bytes, changes: dict[int, bytes]) -> bytes:
    changed = bytearray(content)
    for offset, value in changes.items():
        changed[offset : offset + len(value)] = value
    return bytes(changed)


OTHER_MACHINE, OTHER_NUMBER = ("x86_64", 62) if platform.machine() == "aarch64" else ("aarch64", 183)


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [
        (4, b"\x01", "is not a 64-bit library"),
        (5, b"\x02", "is a library for big-endian machines"),
        (16, b"\x01\x00", "is an object file (.o), not a shared library"),
        (16, b"\x02\x00", "is an executable, not a shared library"),
        (16, b"\x34\x12", "is an ELF file of type 4660, not a shared library"),
        (18, bytes([OTHER_NUMBER, 0]), f"is for {OTHER_MACHINE}, and this machine is {platform.machine()}"),
        (18, b"\xfe\xfe", f"is for machine number 65278, and this machine is {platform.machine()}"),
    ],
)
def test_refuses_a_library_of_another_kind(tmp_path, refuse, library, offset, value, text):
    source = tmp_path / "source"
    source.write_bytes(patched(library, {offset: value}))
    assert refuse(source) == f"{source}: {text}"


@pytest.mark.parametrize("flag", ["-pie", "-no-pie"])
def test_refuses_an_executable(tmp_path, refuse, make_library, flag):
    source = tmp_path / "source"
    exported = ("-fPIE" if flag == "-pie" else "-fno-pie", flag, "-rdynamic")
    source.write_bytes(make_library(ALL, code="int main(void) { return 0; }", kind=exported))
    assert refuse(source) == f"{source}: is an executable, not a shared library"


def examine(content: bytes) -> set[str]:
    return SharedLibrary(io.BytesIO(content), platform.machine()).exported(ALL)


@pytest.mark.parametrize("style", ["gnu", "sysv"])
def test_a_damaged_library_is_an_error_of_ours_or_none(make_library, style):
    content = make_library(ALL, f"-Wl,--hash-style={style}")
    assert examine(content) == set(ALL)
    for size in {*range(200), *range(0, len(content), 61), len(content) - 1}:
        with pytest.raises(ElfError):
            examine(content[:size])
    numbers = random.Random(1)
    # Where the headers, the symbols, the strings and the dynamic segment are: not the padding between.
    places = [place for place, byte in enumerate(content) if byte or place < 1024]
    started = time.monotonic()
    errors = 0
    for _ in range(4000):
        changes = {}
        for _ in range(numbers.choice([1, 1, 2, 8])):
            size = numbers.choice([1, 1, 4, 8])
            changes[numbers.choice(places)] = numbers.choice([numbers.randbytes(size), b"\xff" * size, bytes(size)])
        try:
            examine(patched(content, changes)[: len(content)])
        except ElfError:
            errors += 1
    assert 400 < errors < 3900
    assert time.monotonic() - started < 30


def test_a_library_that_is_cut_short_is_refused(server, refuse, library):
    def answer(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + library[: len(library) // 2])  # its size is not told

    server.answers["/"] = answer
    start = f"{server.url('/')}: is cut short or damaged: it has {len(library) // 2} bytes, and its "
    assert refuse(server.url("/")).startswith(start)


# What goes wrong on the way.


def test_a_missing_file_is_named(tmp_path, refuse):
    assert refuse(tmp_path / "missing") == f"[Errno 2] No such file or directory: '{tmp_path}/missing'"
    assert refuse(f"file://{tmp_path}/missing") == f"[Errno 2] No such file or directory: '{tmp_path}/missing'"
    assert refuse(tmp_path) == f"[Errno 21] Is a directory: '{tmp_path}'"


def test_what_the_server_answers_is_told(server, refuse):
    server.answers["/gone"] = lambda handler: handler.reply(b"<html>", 404)
    assert (
        refuse(server.url("/gone")) == f"{server.url('/gone')}: cannot be downloaded: the server answered 404 Not Found. {ADVICE}"
    )


def test_a_download_that_ends_early_is_told(server, refuse, library):
    url = server.serve(library[:5000], Content_Length=str(len(library)))
    text = f"{url}: cannot be downloaded: the connection ended after 5000 of {len(library)} bytes. {ADVICE}"
    assert refuse(url) == text


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345"])
def test_a_transfer_that_stalls_is_told(server, refuse, monkeypatch, sent):
    def answer(handler: Handler) -> None:
        handler.wfile.write(sent)
        handler.server.closing.wait(20)

    server.answers["/"] = answer
    monkeypatch.setattr(get_libcfs, "_TIMEOUT_SECONDS", 0.25)
    assert refuse(server.url("/")) == f"{server.url('/')}: cannot be downloaded: nothing came within 0.25 s. {ADVICE}"


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"", "Remote end closed connection without response"),
        (b"what?\r\n\r\n", "this is no HTTP: 'what?\\r\\n'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n123", "the connection ended too early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n123", "the connection ended too early"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "the server answered 302 Found"),
    ],
    ids=["nothing", "no HTTP", "short chunk", "no chunk", "redirect to nowhere"],
)
def test_a_server_that_talks_nonsense_is_told(server, refuse, sent, text):
    server.answers["/"] = lambda handler: handler.wfile.write(sent)
    assert refuse(server.url("/")) == f"{server.url('/')}: cannot be downloaded: {text}. {ADVICE}"


def test_a_chunked_answer_is_taken(server, run, library):
    def answer(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (library[:100], library[100:]):
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    server.answers["/"] = answer
    assert run(server.url("/"))[0] == 0


def test_nobody_there_is_told(server, refuse):
    url = server.url()
    server.socket.close()  # and what is queued there
    assert refuse(url) == f"{url}: cannot be downloaded: [Errno 111] Connection refused. {ADVICE}"


@pytest.mark.parametrize("told", [True, False])
def test_a_size_has_a_limit(server, refuse, monkeypatch, library, told):
    monkeypatch.setattr(get_libcfs, "_MOST_BYTES", len(library) - 1)
    server.answers["/"] = lambda handler: (
        handler.reply(library) if told else handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + library)
    )
    assert refuse(server.url("/")) == f"{server.url('/')}: is larger than the limit of {len(library) - 1} bytes"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_all_as_it_was(tmp_path, refuse, library, monkeypatch, step):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "source").write_bytes(library)
    monkeypatch.setattr(*{"fsync": (os, "fsync", fail), "replace": (Path, "replace", fail)}[step])
    assert refuse(tmp_path / "source") == "[Errno 28] No space left on device"


def test_ctrl_c_leaves_all_as_it_was(server, folder, library):
    begun = threading.Event()

    def answer(handler: Handler) -> None:
        handler.reply(library[:5000], Content_Length=str(len(library)))
        begun.set()
        handler.server.closing.wait(60)

    server.answers["/"] = answer
    command = [sys.executable, "-m", "veturboio.get_libcfs", "--src", server.url("/"), "--dst", str(folder / "libcloudfs.so")]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert begun.wait(60)
        deadline = time.monotonic() + 10
        while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "veturboio.get_libcfs: interrupted\n")
    check_untouched(folder)


# Who may send the library.


@pytest.mark.parametrize("host", ["example.invalid", "127.0.0.1.example.invalid", "localhost.example.invalid", "192.0.2.1"])
def test_http_is_refused_but_to_this_machine(refuse, host):
    url = f"http://{host}/libcloudfs.so"
    assert refuse(url) == (
        f"{url}: http:// is refused but to this machine itself: this is code that will be run, and on the way anyone could "
        "replace it. Use https://"
    )


def test_http_is_taken_from_this_machine_by_name(server, run, library):
    server.serve(library)
    assert run(server.url(host="localhost"))[0] == 0


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://127.0.0.1/x", "ftp://127.0.0.1/x: ftp:// is not supported: use https://, file:// or a path"),
        ("sfcs://x/y", "sfcs://x/y: sfcs:// is not supported: use https://, file:// or a path"),
        ("https://me:word@127.0.0.1/x", "https://127.0.0.1/x: a user name or a password in the url is not supported"),
        ("file://x/y", "file://x/y: is a file on another machine: a file:// url has three slashes"),
        ("https://[x/y", "https://[x/y: is no url: Invalid IPv6 URL"),
        ("https:///x", f"https:///x: cannot be downloaded: no host given. {ADVICE}"),
        ("https://127.0.0.1:x/", f"https://127.0.0.1:x/: cannot be downloaded: nonnumeric port: 'x'. {ADVICE}"),
    ],
)
def test_urls_that_do_not_serve_are_told(refuse, url, text):
    assert refuse(url) == text


def test_the_query_of_a_url_may_be_a_secret_and_is_not_shown(server, run, refuse, folder, library):
    url = server.serve(library, "/x?signature=abc")
    assert run(url)[0] == 0
    assert server.asked == ["/x?signature=abc"]
    (folder / "libcloudfs.so").write_bytes(OLD)
    url = server.serve(b"no", "/x?signature=abc")
    assert refuse(url).startswith(f"{server.url('/x')}?...: is not a shared library")


def test_a_redirect_is_followed(server, run, library):
    assert run(server.redirect(server.serve(library)))[0] == 0
    assert server.asked == ["/moved", "/libcloudfs.so"]


@pytest.mark.parametrize("to", ["http://example.invalid/x?y=z", "ftp://127.0.0.1/x", "file:///etc/hostname"])
def test_a_redirect_to_what_is_not_safe_is_refused(server, refuse, to):
    url = server.redirect(to)
    text = refuse(url)
    assert text.startswith(
        (f"{url}: redirects to {to.partition('?')[0]}", f"{url}: cannot be downloaded: the server answered 302 ")
    )
    assert "y=z" not in text


def test_redirects_without_end_are_an_error(server, refuse):
    url = server.redirect(server.url("/moved"))
    assert refuse(url).startswith(f"{url}: cannot be downloaded: the server answered 302 ")


def test_gets_the_library_by_https(tls_server, run, folder, library, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert run(tls_server.serve(library))[0] == 0
    assert (folder / "libcloudfs.so").read_bytes() == library


def test_a_certificate_is_verified_whatever_the_process_has_switched_off(tls_server, refuse, library, monkeypatch):
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    url = tls_server.serve(library)
    text = refuse(url)
    assert text.startswith(f"{url}: cannot be downloaded: [SSL: CERTIFICATE_VERIFY_FAILED]")
    assert tls_server.asked == []


def test_a_certificate_is_for_its_host_only(tls_server, refuse, library, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls_server.serve(library)
    assert "[SSL: CERTIFICATE_VERIFY_FAILED]" in refuse(tls_server.url(host="localhost"))


def test_from_https_to_http_on_another_host_is_refused(tls_server, refuse, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    url = tls_server.redirect("http://example.invalid/x")
    assert refuse(url).startswith(f"{url}: redirects to http://example.invalid/x: http:// is refused")


def test_a_proxy_serves_for_other_hosts_only(server, run, refuse, library, monkeypatch):
    proxy = server.url("")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    assert "403" in refuse("https://example.invalid/libcloudfs.so")
    assert server.asked == ["CONNECT example.invalid:443"]
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody listens
    assert run(server.serve(library))[0] == 0


# By setup.py, without PyTorch, tqdm and a library that is built.


@pytest.fixture
def tree(tmp_path) -> Path:
    """A source tree in which nothing is built."""
    path = tmp_path / "tree"
    (path / "csrc").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "csrc/sources.txt"):
        shutil.copy(ROOT / name, path / name)
    shutil.copytree(ROOT / "veturboio", path / "veturboio", ignore=shutil.ignore_patterns("lib", "__pycache__"))
    return path


@pytest.fixture
def run_setup(tree, tmp_path):
    missing = tmp_path / "missing"
    missing.mkdir()
    for name in ("torch", "tqdm"):
        (missing / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name} here', name='{name}')")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "setup.py", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(missing)}
        return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_setup_gets_the_library_without_torch(tree, run_setup, server, library):
    done = run_setup("get_libcfs", "--src", server.serve(library))
    assert done.returncode == 0, done.stderr
    file = tree / "veturboio" / "lib" / "libcloudfs.so"
    assert f"{file}: {len(library)} bytes, SHA-256 " in done.stdout
    assert file.read_bytes() == library
    assert [path.name for path in file.parent.iterdir()] == ["libcloudfs.so"]


def test_setup_tells_the_reason_and_fails(tree, run_setup, server):
    url = server.serve(b"<html>")
    done = run_setup("get_libcfs", "--src", url, "--dst", "x.so")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"get_libcfs: {url}: is not a shared library: it seems to be an HTML page"
    assert not (tree / "x.so").exists()
    assert "Traceback" not in done.stderr


def test_a_wheel_has_the_library_while_the_tree_has_it_and_an_sdist_never(tree, run_setup, library):
    file = tree / "veturboio" / "lib" / "libcloudfs.so"
    file.parent.mkdir()
    file.write_bytes(library)
    (file.parent / "other.so").write_bytes(b"")
    assert run_setup("sdist").returncode == 0
    with tarfile.open(next((tree / "dist").glob("*.tar.gz"))) as sdist:
        names = sdist.getnames()
    assert any(name.endswith("/veturboio/get_libcfs.py") for name in names)
    assert [name for name in names if name.endswith(".so")] == []

    for expected in (["veturboio/lib/libcloudfs.so"], []):
        done = run_setup("build_py", "bdist_wheel", "--skip-build")  # compiles nothing
        assert done.returncode == 0, done.stderr
        with zipfile.ZipFile(next((tree / "dist").glob("*.whl"))) as wheel:
            assert [name for name in wheel.namelist() if name.endswith(".so")] == expected
        assert ("do not publish it" in done.stdout + done.stderr) == bool(expected)
        file.unlink(missing_ok=True)
