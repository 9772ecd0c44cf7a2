"""A client of libcloudfs.so by ctypes, for the processes that test_fake_cloudfs.py starts."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_int32, c_int64, c_short, c_uint, c_uint64, c_void_p
from typing import Any

__all__ = [
    "cfs",
    "concat",
    "connect",
    "create",
    "new_builder",
    "os",
    "pread",
    "put",
    "read",
    "refused",
    "size_of",
    "sys",
    "write",
]

O_ASYNC = 0o20000
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "cfsGetLastError": (c_char_p, []),
    "cfsNewBuilder": (c_void_p, []),
    "cfsBuilderSetNameNode": (None, [c_void_p, c_char_p]),
    "cfsSetCredentials": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p]),
    "cfsBuilderConnect": (c_void_p, [c_void_p, c_char_p]),
    "cfsFreeBuilder": (None, [c_void_p]),
    "cfsDisconnect": (c_int, [c_void_p]),
    "cfsOpenFile": (c_void_p, [c_void_p, c_char_p, c_int, c_int, c_short, c_int64]),
    "cfsOpenFileAcc": (c_void_p, [c_void_p, c_char_p, c_int, c_uint, c_int, c_int]),
    "cfsCloseFile": (c_int, [c_void_p, c_void_p]),
    "cfsPread": (c_int32, [c_void_p, c_void_p, c_int64, c_void_p, c_int32]),
    "cfsWrite": (c_int64, [c_void_p, c_void_p, c_char_p, c_uint64]),
    "cfsHSync": (c_int, [c_void_p, c_void_p]),
    "cfsGetPathInfo": (c_void_p, [c_void_p, c_char_p]),
    "cfsFreeFileInfo": (None, [c_void_p, c_int]),
    "cfsDelete": (c_int, [c_void_p, c_char_p, c_int]),
    "cfsRename2": (c_int, [c_void_p, c_char_p, c_char_p]),
    "cfsConcat": (c_int, [c_void_p, c_char_p, ctypes.POINTER(c_char_p), c_int]),
    "cfsCreateDirectory": (c_int, [c_void_p, c_char_p]),
    "cfsGetDefaultBlockSize": (c_int64, [c_void_p]),
}


class Info(ctypes.Structure):
    _fields_ = (
        ("kind", c_int),
        ("name", c_char_p),
        ("last_modified", c_int64),
        ("size", c_int64),
        ("replication", c_short),
        ("block_size", c_int64),
    )


cfs = ctypes.CDLL(os.environ["VETURBOIO_LIBCFS"], use_errno=True)
for _name, (_result, _arguments) in FUNCTIONS.items():
    if _name != "cfsSetCredentials" or hasattr(cfs, _name):  # older libraries have none
        getattr(cfs, _name).restype = _result
        getattr(cfs, _name).argtypes = _arguments


class Failed(Exception):  # noqa: N818
    """A call that has returned what says that it failed."""


def checked(result: Any) -> Any:
    if result in (None, -1):
        raise Failed
    return result


def refused(function: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The errno's name and the text of the failure, or "accepted"."""
    try:
        checked(function(*arguments, **options))
    except Failed:
        text = cfs.cfsGetLastError().decode()
        return f"{errno.errorcode[ctypes.get_errno()]} {text}"
    return "accepted"


def new_builder(name_node: bytes = b"default") -> Any:
    builder = checked(cfs.cfsNewBuilder())
    cfs.cfsBuilderSetNameNode(builder, name_node)
    return builder


def connect(credentials: tuple[bytes, bytes, bytes | None] | None = None, name_node: bytes = b"default") -> Any:
    builder = new_builder(name_node)
    if credentials is not None:
        checked(cfs.cfsSetCredentials(builder, *credentials))
    fs = cfs.cfsBuilderConnect(builder, None)
    if fs is None:
        code = ctypes.get_errno()
        cfs.cfsFreeBuilder(builder)
        ctypes.set_errno(code)
    return checked(fs)


def create(fs: Any, path: bytes, *, append: bool = False) -> Any:
    flags = os.O_WRONLY | O_ASYNC | (os.O_APPEND if append else 0)
    return checked(cfs.cfsOpenFileAcc(fs, path, flags, 0o644, 0, int(append)))


def put(fs: Any, handle: Any, data: bytes) -> None:
    while data:
        data = data[checked(cfs.cfsWrite(fs, handle, data, len(data))) :]


def write(fs: Any, path: bytes, *pieces: bytes, append: bool = False) -> None:
    handle = create(fs, path, append=append)
    for piece in pieces:
        put(fs, handle, piece)
    checked(cfs.cfsHSync(fs, handle))
    checked(cfs.cfsCloseFile(fs, handle))


def pread(fs: Any, handle: Any, offset: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    got = checked(cfs.cfsPread(fs, handle, offset, buffer, size))
    return buffer.raw[:got]


def read(fs: Any, path: bytes, *, close: bool = True) -> bytes:
    handle = checked(cfs.cfsOpenFile(fs, path, 0, 0, 0, 0))
    data = b""
    while piece := pread(fs, handle, len(data), 1000):
        data += piece
    if close:
        checked(cfs.cfsCloseFile(fs, handle))
    return data


def size_of(fs: Any, path: bytes) -> int:
    address = checked(cfs.cfsGetPathInfo(fs, path))
    info = Info.from_address(address)
    assert info.name == path
    assert info.block_size > 0
    assert info.kind in (ord("F"), ord("D"))
    size = int(info.size)
    cfs.cfsFreeFileInfo(address, 1)
    return size


def concat(fs: Any, target: bytes, *sources: bytes) -> None:
    checked(cfs.cfsConcat(fs, target, (c_char_p * len(sources))(*sources), len(sources)))
