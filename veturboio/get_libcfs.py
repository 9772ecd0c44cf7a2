"""Gets libcloudfs.so, the client library of SFCS: ``python -m veturboio.get_libcfs``, or ``python setup.py get_libcfs``.

Exit status: 0 when it is there, 1 when it cannot be had (with the reason on standard error), 2 for wrong usage, 130 when
interrupted. The library is put in place only when all of it has come and it has been found to be what is needed.

setup.py runs this where neither PyTorch nor the built library need be: nothing here may import them, or anything else that does
not come with Python.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import ipaddress
import os
import platform
import re
import secrets
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import SplitResult, urlsplit

from veturboio._elf import ElfError, SharedLibrary

DEFAULT_SOURCE = "https://veturbo-cn-beijing.tos-cn-beijing.volces.com/veturboio/libcfs/libcloudfs.so"
DEFAULT_DESTINATION = Path(__file__).parent / "lib" / "libcloudfs.so"
VARIABLE = "VETURBOIO_LIBCFS"

# What csrc/core/storage/sfcs/cloudfs.h declares.
NEEDED_FUNCTIONS = (
    "cfsGetLastError",
    "cfsNewBuilder",
    "cfsBuilderSetNameNode",
    "cfsBuilderConnect",
    "cfsFreeBuilder",
    "cfsDisconnect",
    "cfsOpenFile",
    "cfsOpenFileAcc",
    "cfsCloseFile",
    "cfsPread",
    "cfsWrite",
    "cfsHSync",
    "cfsGetPathInfo",
    "cfsFreeFileInfo",
    "cfsDelete",
    "cfsRename2",
    "cfsConcat",
    "cfsCreateDirectory",
    "cfsGetDefaultBlockSize",
)
OPTIONAL_FUNCTION = "cfsSetCredentials"

_PIECE_BYTES = 1 << 20
_MOST_BYTES = 1 << 30
_TIMEOUT_SECONDS = 30.0  # for a connection, and for each next piece

# The bytes, in pieces, each with how many there are in all where that is known.
_Pieces = Generator[tuple[bytes, int | None], None, None]

_ADVICE = f"Download it elsewhere and give it by --src FILE, or name it with {VARIABLE}"
_DESCRIPTION = (
    "Gets libcloudfs.so, the client library of SFCS, which sfcs:// paths need, checks it, and puts it where veTurboIO looks for "
    "it: into the package that this command is run of. Run it after the installation. Or run `python setup.py get_libcfs`, which "
    "puts it into the source tree, and then `pip install .`, which takes it along, as any wheel does that is built there; an "
    "sdist never does. The library is not part of veTurboIO, which may not pass it on: do not publish such a wheel."
)


class GetLibcfsError(Exception):
    """The library cannot be had, or is not what is needed."""


@dataclass(frozen=True)
class Library:
    """A library that has been put in place."""

    path: Path
    size: int
    sha256: str
    has_set_credentials: bool


def main(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (None: the process's own) and returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.src or options.dst == "":
        parser.error("--src and --dst may not be empty")
    try:
        _say(describe(get_library(options.src, options.dst)))
    except (GetLibcfsError, OSError) as error:
        print(f"veturboio.get_libcfs: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("veturboio.get_libcfs: interrupted", file=sys.stderr)
        return 130
    return 0


def get_library(source: str | None = None, destination: str | None = None) -> Library:
    """Fetches the library from a url or a path, checks it, and puts it in place. A failure leaves what was there as it was."""
    source = source or DEFAULT_SOURCE
    path = Path(destination) if destination else DEFAULT_DESTINATION
    name, pieces = _open_source(source)
    if not destination:
        path.parent.mkdir(exist_ok=True)
    elif path.is_dir():
        raise GetLibcfsError(f"{path} is a folder: give the name of a file in it")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # A new file that takes the name: writing into the old one would change the code of processes that run it.
        with open(temporary, "xb+", opener=_create_executable) as out, _progress_bar() as report:
            size, sha256 = _copy(name, pieces, out, report)
            has_set_credentials = _check(name, out)
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Library(path, size, sha256, has_set_credentials)


def describe(library: Library) -> str:
    """What to tell of it, as lines of text."""
    lines = [
        f"{library.path}: {library.size} bytes, SHA-256 {library.sha256}",
        f"{OPTIONAL_FUNCTION}: {'yes' if library.has_set_credentials else 'no, this is an older library'}",
    ]
    chosen = os.environ.get(VARIABLE)
    if chosen and Path(chosen).absolute() != library.path.absolute():
        lines.append(f"It is not used while {VARIABLE} names {chosen}")
    elif not chosen and library.path.absolute() != DEFAULT_DESTINATION.absolute():
        lines.append(f"To use it, set {VARIABLE}={library.path.absolute()}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m veturboio.get_libcfs", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--src", default=DEFAULT_SOURCE, metavar="URL", help="an https:// or file:// url, or a path; by default %(default)s"
    )
    parser.add_argument(
        "--dst", metavar="FILE", help=f"the file to write; by default {str(DEFAULT_DESTINATION).replace('%', '%%')}"
    )
    return parser


def _copy(name: str, pieces: _Pieces, out: BinaryIO, report: Callable[[int, int], None]) -> tuple[int, str]:
    """Copies the pieces and returns their size and their SHA-256."""
    done = 0
    digest = hashlib.sha256()
    with closing(pieces):
        for piece, total in pieces:
            done += len(piece)
            if max(done, total or 0) > _MOST_BYTES:
                raise GetLibcfsError(f"{name}: is larger than the limit of {_MOST_BYTES} bytes")
            out.write(piece)
            digest.update(piece)
            report(done, total or 0)
    out.flush()
    return done, digest.hexdigest()


def _check(name: str, file: BinaryIO) -> bool:
    """Whether it has the function that may be missing; an error where it is not the library."""
    try:
        found = SharedLibrary(file, platform.machine()).exported([*NEEDED_FUNCTIONS, OPTIONAL_FUNCTION])
    except ElfError as error:
        raise GetLibcfsError(f"{name}: {error}") from None
    missing = [function for function in NEEDED_FUNCTIONS if function not in found]
    if missing:
        raise GetLibcfsError(f"{name}: is not the library that is needed: it lacks {', '.join(missing)}")
    return OPTIONAL_FUNCTION in found


def _open_source(source: str) -> tuple[str, _Pieces]:
    """What to call the source in messages, and its content."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        return source, _read_file(Path(source))
    parts = _split(source)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise GetLibcfsError(f"{source}: is a file on another machine: a file:// url has three slashes")
        path = urllib.request.url2pathname(parts.path)
        return path, _read_file(Path(path))
    _refuse_insecure(source)
    return _shown(source), _read_url(source)


def _read_file(path: Path) -> _Pieces:
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size or None  # of a pipe it is 0
        while piece := file.read(_PIECE_BYTES):
            yield piece, total


def _read_url(url: str) -> _Pieces:
    done = 0
    total: int | None = None
    request = urllib.request.Request(url, headers={"User-Agent": "veturboio"})
    try:
        with _opener().open(request, timeout=_TIMEOUT_SECONDS) as response:
            total = response.length
            while piece := response.read1(_PIECE_BYTES):
                done += len(piece)
                yield piece, total
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise _cannot_download(url, f"the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _cannot_download(url, _reason(error.reason if isinstance(error, urllib.error.URLError) else error)) from None
    # http.client reads on to the end of the connection, and finds nothing wrong with an early one.
    if total is not None and done < total:
        raise _cannot_download(url, f"the connection ended after {done} of {total} bytes")


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came within {_TIMEOUT_SECONDS:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended too early"
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        return f"this is no HTTP: {str(error)[:80]!r}"
    return str(error) or type(error).__name__


def _cannot_download(url: str, reason: str) -> GetLibcfsError:
    one_line = " ".join(reason.split())  # a server may have had its say in it
    return GetLibcfsError(f"{_shown(url)}: cannot be downloaded: {one_line}. {_ADVICE}")


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a download may also begin."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _refuse_insecure(newurl)
        except GetLibcfsError as error:
            fp.close()
            raise GetLibcfsError(f"{_shown(req.full_url)}: redirects to {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _ProxiesToOthers(urllib.request.ProxyHandler):
    """The proxies of the environment, but none to this machine itself."""

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:
        if _is_loopback(urlsplit(req.full_url).hostname):
            return None
        return super().proxy_open(req, proxy, type)


def _opener() -> urllib.request.OpenerDirector:
    # A context of its own: the one that urllib makes can be switched, for a whole process, to one that verifies nothing.
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    return urllib.request.build_opener(https, _SecureRedirects(), _ProxiesToOthers())


def _refuse_insecure(url: str) -> None:
    parts = _split(url)
    if "@" in parts.netloc:
        raise GetLibcfsError(f"{_shown(url)}: a user name or a password in the url is not supported")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return
    if parts.scheme == "http":
        raise GetLibcfsError(
            f"{_shown(url)}: http:// is refused but to this machine itself: this is code that will be run, and on the way anyone "
            "could replace it. Use https://"
        )
    raise GetLibcfsError(f"{_shown(url)}: {parts.scheme}:// is not supported: use https://, file:// or a path")


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise GetLibcfsError(f"{url}: is no url: {error}") from None


def _shown(url: str) -> str:
    """The url without what may be a secret: a signature in its query, a password."""
    parts = _split(url)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="...", fragment="")
    return shown.geturl() if parts.query else shown._replace(query="").geturl()


def _create_executable(path: str, flags: int) -> int:
    return os.open(path, flags, 0o755)  # less the umask


def _progress_bar() -> AbstractContextManager[Callable[[int, int], None]]:
    try:
        import tqdm  # noqa: F401  what the bar is drawn with, which looks for it only then

        from veturboio._progress import progress_bar
    except ImportError:

        def report_nothing(done: int, total: int) -> None:
            pass

        return nullcontext(report_nothing)
    return progress_bar("downloading")


def _say(text: str) -> None:
    # A path may have characters that the terminal's encoding lacks, or bytes that are no characters at all.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


if __name__ == "__main__":
    sys.exit(main())
