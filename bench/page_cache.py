"""Whether a file is in the page cache, and putting it there or not."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

from measure import BenchError

_LIBC = ctypes.CDLL(None, use_errno=True)
_REST_SECONDS = 2.0
_MOST_LEFT = 0.01  # of a file that is called cold
_MOST_MISSING = 0.001  # of one that is called warm


def make_cold(file: Path) -> None:
    """Writes the file's pages to the disk and drops them, and lets the disk rest: those of virtual machines give less for a while
    after much was read, and whoever has the next turn would pay for it.

    Raises:
        BenchError: More of them stay than a hundredth.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    if (share := cached_share(file)) > _MOST_LEFT:
        raise BenchError(f"{share:.0%} of {file} stay in the page cache: it cannot be measured cold")
    time.sleep(_REST_SECONDS)


def make_warm(file: Path) -> None:
    """Reads the file into the page cache, where that does not have it.

    Raises:
        BenchError: The page cache does not keep it.
    """
    if cached_share(file) >= 1 - _MOST_MISSING:
        return
    with file.open("rb", buffering=0) as opened:
        while opened.read(16 << 20):
            pass
    if (share := cached_share(file)) < 1 - _MOST_MISSING:
        raise BenchError(f"only {share:.0%} of {file} stay in the page cache: there is too little memory to measure it warm")


def cached_share(file: Path) -> float:
    size = file.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), size) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        try:
            if _LIBC.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), resident) != 0:
                raise OSError(ctypes.get_errno(), "mincore failed")
        finally:
            del first  # or the mapping cannot be closed
    return sum(page & 1 for page in bytes(resident)) / pages
