"""Our files as Python's file objects, for formats that PyTorch itself reads and writes."""

from __future__ import annotations

import io
import os
from typing import Any

import torch

from veturboio._errors import python_errors

_BUFFER_BYTES = 8 << 20


class ReadableFileObject(io.RawIOBase):
    """What torch.load reads from, over a FileReader."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._size = reader.size()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(22, "Invalid argument")  # as a file of Python's own
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        size: int = max(0, min(len(target), self._size - self._position))
        if size > 0:
            with python_errors():
                self._reader.read_into(torch.frombuffer(target[:size], dtype=torch.uint8), self._position)
            self._position += size
        return size


class WritableFileObject(io.RawIOBase):
    """What torch.save writes to, over a FileWriter."""

    def __init__(self, writer: Any) -> None:
        self.error: BaseException | None = None  # the first that a write raised
        self._writer = writer
        # PyTorch hands over read-only memory, of which torch.frombuffer makes no tensor without a warning.
        self._buffer = bytearray(_BUFFER_BYTES)
        self._tensor = torch.frombuffer(self._buffer, dtype=torch.uint8)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self._write(data)
        except BaseException as error:
            self.error = self.error or error
            raise

    def _write(self, data: Any) -> int:
        source = memoryview(data).cast("B")
        for begin in range(0, len(source), _BUFFER_BYTES):
            piece = source[begin : begin + _BUFFER_BYTES]
            self._buffer[: len(piece)] = piece
            with python_errors():
                self._writer.write(self._tensor[: len(piece)])
        return len(source)
