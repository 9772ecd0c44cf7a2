"""Where another process's memory holds a secret: looked at from outside, so that whoever looks adds no copy of it."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fresh_process import environment

# So many are there by no accident.
PIECE_BYTES = 8


@dataclass(frozen=True)
class Mapping:
    begin: int
    end: int
    path: str
    flags: frozenset[str]  # as in "VmFlags" of proc(5); "dd": not in core dumps


@dataclass(frozen=True)
class Place:
    """Where a piece of a secret was found."""

    address: int
    mapping: Mapping

    @property
    def is_dumped(self) -> bool:
        return "dd" not in self.mapping.flags


class Process:
    """Python that runs what it is told, and keeps what that has named."""

    _PROGRAM = """
    import json, os, sys
    import torch, veturboio
    for line in sys.stdin:
        end = "done"
        try:
            exec(json.loads(line))
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
        print(json.dumps(end), flush=True)
    """

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", textwrap.dedent(self._PROGRAM)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(PYTHONWARNINGS="ignore"))

    def start(self, code: str) -> None:
        assert self._process.stdin is not None
        print(json.dumps(code), file=self._process.stdin, flush=True)

    def wait(self) -> str:
        """ "done", or the exception."""
        assert self._process.stdout is not None
        end: str = json.loads(self._process.stdout.readline())
        return end

    def run(self, code: str) -> str:
        self.start(code)
        return self.wait()

    def close(self) -> None:
        self._process.communicate()

    def find(self, pieces: set[bytes]) -> dict[int, Place]:
        """By address. Pages that cannot be written are a file's and were not looked at."""
        found = {}
        with Path(f"/proc/{self._process.pid}/mem").open("rb", buffering=0) as memory:
            for mapping in self._mappings():
                memory.seek(mapping.begin)
                try:
                    content = memory.read(mapping.end - mapping.begin)
                except OSError:  # a device's
                    continue
                for piece in pieces:
                    at = content.find(piece)
                    while at >= 0:
                        found[mapping.begin + at] = Place(mapping.begin + at, mapping)
                        at = content.find(piece, at + 1)
        return found

    def _mappings(self) -> Iterator[Mapping]:
        text = Path(f"/proc/{self._process.pid}/smaps").read_text()
        entry = r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)\n(?:[A-Z].*\n)*?VmFlags: (.*)$"
        for begin, end, access, inode, path, flags in re.findall(entry, text, re.MULTILINE):
            if "r" in access and ("w" in access or inode == "0") and not path.startswith("[v"):
                yield Mapping(int(begin, 16), int(end, 16), path, frozenset(flags.split()))


def ends_of(*secrets: bytes) -> set[bytes]:
    """What to look for. Over a secret's beginning the allocator may have written when it was freed."""
    return {secret[-PIECE_BYTES:] for secret in secrets}


def last_round_keys(key: bytes) -> bytes:
    """What AES makes of a key in the end (FIPS 197), as long as the key: from it the key can be had back."""
    words = [key[i : i + 4] for i in range(0, len(key), 4)]
    length, rounds = len(words), len(words) + 6
    constant = 1
    while len(words) < 4 * (rounds + 1):
        word = words[-1]
        if len(words) % length == 0:
            word = bytes(_substituted(byte) for byte in word[1:] + word[:1])
            word = bytes([word[0] ^ constant, *word[1:]])
            constant = _times(2, constant)
        elif length > 6 and len(words) % length == 4:
            word = bytes(map(_substituted, word))
        words.append(bytes(a ^ b for a, b in zip(words[-length], word, strict=True)))
    return b"".join(words)[-len(key) :]


def _times(a: int, b: int) -> int:
    """In AES's field."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


@functools.cache
def _substituted(byte: int) -> int:
    """AES's S-box."""
    inverse = next((other for other in range(256) if _times(byte, other) == 1), 0)
    rotations = (((inverse << n) | (inverse >> (8 - n))) & 0xFF for n in range(5))
    return functools.reduce(int.__xor__, rotations, 0x63)
