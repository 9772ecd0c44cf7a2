"""Loads and saves model files for PyTorch as fast as the hardware allows.

    >>> import veturboio
    >>> veturboio.save_file({"weight": torch.ones(3)}, "model.safetensors")
    >>> veturboio.load("model.safetensors", map_location="cuda:0")
    {'weight': tensor([1., 1., 1.], device='cuda:0')}

The same engine is reached from TorchScript and C++ as ``torch.ops.veturbo.load_file`` and ``torch.ops.veturbo.save_file``
once ``torch.ops.load_library(veturboio.library_path)`` has been called there; importing this package does that.
"""

from veturboio._errors import CipherKeyError, FileFormatError
from veturboio._exit import disconnect_at_exit, park_threads_at_exit
from veturboio._io_helper import IOHelper, init_io_helper
from veturboio._library import library_path
from veturboio._load import load, load_to_shmem
from veturboio._load_async import LoadJob, LoadProgress, load_async
from veturboio._load_into import load_into
from veturboio._patch import patch_safetensors, unpatch_safetensors
from veturboio._reader import ModelReader, TensorInfo, TensorSlice, open
from veturboio._save import save_file, save_model, save_pt
from veturboio._save_sharded import save_sharded
from veturboio._stream import stream
from veturboio._version import __version__

disconnect_at_exit()
park_threads_at_exit()

__all__ = [
    "CipherKeyError",
    "FileFormatError",
    "IOHelper",
    "LoadJob",
    "LoadProgress",
    "ModelReader",
    "TensorInfo",
    "TensorSlice",
    "__version__",
    "init_io_helper",
    "library_path",
    "load",
    "load_async",
    "load_into",
    "load_to_shmem",
    "open",
    "patch_safetensors",
    "save_file",
    "save_model",
    "save_pt",
    "save_sharded",
    "stream",
    "unpatch_safetensors",
]
