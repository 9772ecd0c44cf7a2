"""Reads as much of an ELF file as tells whether it is a shared library that has certain functions.

It goes by what the dynamic loader goes by: the program headers, and what the dynamic segment says of the symbols. The section
headers, which a library may lack, only serve to notice a file that was cut short: they are at its end.

The file is not trusted. Nothing is read before its place is compared with the file's size, tables have a limit, and whatever is
wrong is an ElfError, whose text is to follow the file's name.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC_ENTRY = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_WORD = struct.Struct("<I")

_64_BIT, _LITTLE_ENDIAN = 2, 1
_TYPES = {1: "an object file (.o)", 2: "an executable", 4: "a core dump"}
_SHARED_OBJECT = 3
_MACHINES = {
    3: "i386",
    20: "ppc",
    21: "ppc64le",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_LOADED, _DYNAMIC = 1, 2
_NO_SECTION, _SECTION_WITHOUT_BYTES = 0, 8
_END, _HASH, _STRINGS, _SYMBOLS, _STRINGS_SIZE, _GNU_HASH, _FLAGS_1 = 0, 4, 5, 6, 10, 0x6FFFFEF5, 0x6FFFFFFB
_IS_PIE = 0x08000000
_VISIBLE_BINDINGS = (1, 2, 10)  # global, weak, unique
_FUNCTION_TYPES = (0, 2, 10)  # none (assembly often gives none), function, function chosen at run time
_VISIBLE = (0, 3)  # default, protected

# Of the largest libraries that there are, the symbols take half of it.
_MOST_TABLE_BYTES = 64 << 20
# Far more symbols than ever share one slot of a hash table.
_MOST_CHAIN_BYTES = 1 << 20

# What a file that is no ELF file begins with, and what it then seems to be.
_OTHER_KINDS = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b"<", "an HTML or XML document"),
    (b"{", "a JSON document"),
    (b"!<arch>", "a static library (.a)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"pk\x03\x04", "a zip archive"),
    (b"bzh", "a bzip2 archive"),
    (b"\xfd7zxz", "an xz archive"),
    (b"mz", "a Windows program or library"),
    (b"\xcf\xfa\xed\xfe", "a macOS program or library"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)


class ElfError(ValueError):
    """The file is not a shared library for this machine, or is damaged."""


class SharedLibrary:
    """A shared library for that machine (by its name in platform.machine()), in an open file that does not change."""

    def __init__(self, file: BinaryIO, machine: str) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._check_kind(machine)
        _, _, _, _, _, programs_at, sections_at, _, _, program_size, programs, section_size, sections, _ = self._header
        if sections_at != 0:
            self._check_sections(sections_at, section_size, sections)
        if program_size != _PROGRAM_HEADER.size:
            raise ElfError(f"is damaged: its program headers have {program_size} bytes each")
        self._loaded: list[tuple[int, int, int]] = []
        self._tags: dict[int, int] = {}
        self._read_programs(programs_at, programs)
        if self._tags.get(_FLAGS_1, 0) & _IS_PIE:
            raise ElfError("is an executable, not a shared library")

    def exported(self, names: Collection[str]) -> set[str]:
        """Those of these names that it has as functions which others can call; versions of symbols do not matter."""
        strings = self._read_mapped(self._tag(_STRINGS), self._tag(_STRINGS_SIZE), "string table")
        symbols = self._read_mapped(self._tag(_SYMBOLS), self._symbol_count() * _SYMBOL.size, "symbol table")
        wanted = {name.encode(): name for name in names}
        longest = max(map(len, wanted), default=0)
        found = set()
        for name_at, info, other, section, _, _ in _SYMBOL.iter_unpack(symbols):
            if (
                section == 0
                or info >> 4 not in _VISIBLE_BINDINGS
                or info & 15 not in _FUNCTION_TYPES
                or other & 3 not in _VISIBLE
            ):
                continue
            end = strings.find(b"\0", name_at, name_at + longest + 1)
            if end >= 0 and (name := wanted.get(strings[name_at:end])) is not None:
                found.add(name)
        return found

    def _check_kind(self, machine: str) -> None:
        self._file.seek(0)
        start = self._file.read(_HEADER.size)
        if start[:4] != b"\x7fELF":
            raise ElfError(f"is not a shared library: {_describe(start)}")
        self._header: tuple[Any, ...] = _HEADER.unpack(self._read(0, _HEADER.size, "header"))
        ident, kind, own_machine, *_ = self._header
        if ident[4] != _64_BIT:
            raise ElfError("is not a 64-bit library")
        if ident[5] != _LITTLE_ENDIAN:
            raise ElfError("is a library for big-endian machines")
        if kind != _SHARED_OBJECT:
            raise ElfError(f"is {_TYPES.get(kind, f'an ELF file of type {kind}')}, not a shared library")
        if _MACHINES.get(own_machine) != machine:
            raise ElfError(f"is for {_MACHINES.get(own_machine, f'machine number {own_machine}')}, and this machine is {machine}")

    def _check_sections(self, start: int, size: int, count: int) -> None:
        if size != _SECTION_HEADER.size:
            raise ElfError(f"is damaged: its section headers have {size} bytes each")
        for _, kind, _, _, offset, length, *_ in self._table(_SECTION_HEADER, start, count, "section headers"):
            if kind not in (_NO_SECTION, _SECTION_WITHOUT_BYTES):
                self._check_inside(offset, length, "sections")

    def _read_programs(self, start: int, count: int) -> None:
        for kind, _, offset, address, _, length, _, _ in self._table(_PROGRAM_HEADER, start, count, "program headers"):
            if kind == _LOADED:
                self._check_inside(offset, length, "segments")
                self._loaded.append((address, offset, length))
            elif kind == _DYNAMIC:
                for tag, value in self._table(_DYNAMIC_ENTRY, offset, length // _DYNAMIC_ENTRY.size, "dynamic segment"):
                    if tag == _END:
                        break
                    self._tags[tag] = value
        if not self._tags:
            raise ElfError("is damaged, or holds debug information only: it has no dynamic segment")

    def _symbol_count(self) -> int:
        # Only the hash tables tell it: one does as such, and in the other the last symbol ends the chain that begins the last.
        if _HASH in self._tags:
            _, symbols = struct.unpack("<II", self._read_mapped(self._tags[_HASH], 8, "hash table"))
            return int(symbols)
        table = self._tag(_GNU_HASH)
        slots, first_symbol, filter_words, _ = struct.unpack("<IIII", self._read_mapped(table, 16, "hash table"))
        slots_at = table + 16 + 8 * filter_words
        starts = self._read_mapped(slots_at, _WORD.size * slots, "hash table")
        last: int = max((start for (start,) in _WORD.iter_unpack(starts)), default=0)
        if last < first_symbol:
            return int(first_symbol)
        chain_at = slots_at + _WORD.size * (slots + last - first_symbol)
        room = min(self._place(chain_at, "hash table")[1], _MOST_CHAIN_BYTES) // _WORD.size * _WORD.size
        for (word,) in _WORD.iter_unpack(self._read_mapped(chain_at, room, "hash table")):
            last += 1
            if word & 1:
                return last
        raise ElfError("is damaged: its hash table has no end")

    def _tag(self, tag: int) -> int:
        if tag not in self._tags:
            raise ElfError(f"is damaged: its dynamic segment lacks entry {tag:#x}")
        return self._tags[tag]

    def _place(self, address: int, what: str) -> tuple[int, int]:
        """Where in the file that is which is loaded to the address, and how many bytes follow there."""
        for start, offset, length in self._loaded:
            if start <= address < start + length:
                return offset + address - start, length - (address - start)
        raise ElfError(f"is damaged: its {what} is in no segment")

    def _read_mapped(self, address: int, size: int, what: str) -> bytes:
        offset, room = self._place(address, what)
        if size > room:
            raise ElfError(f"is damaged: its {what} is longer than its segment")
        return self._read(offset, size, what)

    def _table(self, entry: struct.Struct, offset: int, count: int, what: str) -> Iterator[tuple[Any, ...]]:
        return entry.iter_unpack(self._read(offset, entry.size * count, what))

    def _read(self, offset: int, size: int, what: str) -> bytes:
        self._check_inside(offset, size, what)
        if size > _MOST_TABLE_BYTES:
            raise ElfError(f"is damaged: {size} bytes for its {what} are more than the limit of {_MOST_TABLE_BYTES}")
        self._file.seek(offset)
        content = self._file.read(size)
        if len(content) != size:
            raise ElfError("has become shorter while it was read")
        return content

    def _check_inside(self, offset: int, size: int, what: str) -> None:
        if offset + size > self._size:
            raise ElfError(
                f"is cut short or damaged: it has {self._size} bytes, and its {what} would reach to byte {offset + size}"
            )


def _describe(start: bytes) -> str:
    """What a file seems to be that begins with these bytes and is no ELF file."""
    if not start:
        return "it is empty"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, kind in _OTHER_KINDS:
        if text.startswith(beginning):
            return f"it seems to be {kind}"
    return f"it begins with {start[:16]!r}"
