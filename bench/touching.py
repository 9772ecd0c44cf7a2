"""Touching tensors: all cores read all of their bytes, as the first pass of a model over its weights does, which brings in
whatever a loader has only mapped. The sums that this makes become a checksum; page_sums.h says which.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch

from loaders import Tensors
from measure import compiled

_HERE = Path(__file__).resolve().parent
_WORDS_PER_PAGE = 4096 // 8
_PAGES_PER_PIECE = 1024

Touch = Callable[[Tensors], int]


def make_touch(device: torch.device) -> Touch:
    """Returns what touches tensors on a device and gives their checksum, after setting up all that this needs."""
    if device.type != "cpu":
        _checksum_on_device({"": torch.zeros(1 << 20, dtype=torch.int64, device=device)})
        return _checksum_on_device
    program = compiled(_HERE / "touch.cpp", "-O3", "-shared", "-fPIC", depends=[_HERE / "page_sums.h"])
    touch = ctypes.CDLL(str(program)).touch
    touch.restype = ctypes.c_uint64
    threads = len(os.sched_getaffinity(0))

    def checksum(tensors: Tensors) -> int:
        in_order = [tensors[name] for name in sorted(tensors)]
        count = len(in_order)
        data = (ctypes.c_void_p * count)(*[tensor.data_ptr() for tensor in in_order])
        sizes = (ctypes.c_size_t * count)(*[tensor.nbytes for tensor in in_order])
        if any(size % 8 for size in sizes) or not all(tensor.is_contiguous() for tensor in in_order):
            raise ValueError("the bench's tensors are contiguous and made of whole 64-bit words; these are not")
        return int(touch(data, sizes, ctypes.c_size_t(count), ctypes.c_int(threads)))

    checksum({"": torch.zeros(1 << 20, dtype=torch.int64)})
    return checksum


def _checksum_on_device(tensors: Tensors) -> int:
    """The same checksum where the tensors cannot be read by the CPU. They must be whole pages."""
    pages = (tensors[name].reshape(-1).view(torch.int64).view(-1, _WORDS_PER_PAGE) for name in sorted(tensors))
    of_pages = torch.cat([piece.sum(dim=1) for of_tensor in pages for piece in of_tensor.split(_PAGES_PER_PIECE)]).cpu()
    total = int((of_pages * torch.arange(1, len(of_pages) + 1)).sum())
    return total % (1 << 64)  # PyTorch's integers wrap around with a sign, those of page_sums.h without
