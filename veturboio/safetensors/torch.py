"""In the place of safetensors.torch: the same functions, with the engine beneath.

What differs from safetensors: encrypted and remote files are read, and written, as veturboio.load() and veturboio.save_file() do
where the environment says so; the keys of metadata are written sorted, so that the same call writes the same file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import torch

from veturboio._arguments import MapLocation
from veturboio._reader import open as open_model
from veturboio._save import write_file
from veturboio.safetensors._arguments import Filename, checked_backend, checked_device, checked_filename
from veturboio.safetensors._checks import check_tensors
from veturboio.safetensors._errors import reading, writing
from veturboio.safetensors._open import safe_open
from veturboio.safetensors._serialize import TensorSpec, deserialize, file_bytes, open_bytes, serialize, serialize_file
from veturboio.safetensors._shared import (
    _end_ptr,
    _find_shared_tensors,
    _is_complete,
    _remove_duplicate_names,
    storage_ptr,
    storage_size,
)

__all__ = [
    "TensorSpec",
    "_end_ptr",
    "_find_shared_tensors",
    "_flatten",
    "_is_complete",
    "_remove_duplicate_names",
    "_tobytes",
    "deserialize",
    "load",
    "load_file",
    "load_model",
    "safe_open",
    "save",
    "save_file",
    "save_model",
    "serialize",
    "serialize_file",
    "storage_ptr",
    "storage_size",
]


def load_file(filename: Filename, device: MapLocation | None = "cpu", *, backend: str = "mmap") -> dict[str, torch.Tensor]:
    """Loads all tensors of a safetensors file, as safetensors.torch.load_file does.

    Args:
        filename, device: As for safe_open().
        backend: With "mmap" tensors on the CPU are views of a private mapping where that is the quickest: of a file that the page
            cache holds. What is on the disk still, or far away, is read into memory that the tensors own, as with "pread".

    Returns:
        Names and tensors, in the order of the file. Names that were dropped on saving are not restored: see load_model().

    Raises:
        As safe_open().
    """
    checked_filename(filename)
    may_map = checked_backend(backend) == "mmap"
    target = checked_device(device)
    with reading(filename), open_model(filename, map_location=target) as reader:
        return reader.tensors(mmap=may_map and target.type == "cpu" and reader.is_mappable and not reader.is_cold)


def load(data: bytes | bytearray | memoryview) -> dict[str, torch.Tensor]:
    """Makes tensors of the bytes of a safetensors file, as safetensors.torch.load does; the data may also be a bytearray or a
    memoryview. The tensors own their memory.

    Raises:
        SafetensorError: The file is damaged.
        TypeError: It is not bytes.
    """
    with reading("bytes", "deserializing"), open_bytes(data) as reader:
        return reader.tensors()


def save_file(tensors: dict[str, torch.Tensor], filename: Filename, metadata: dict[str, str] | None = None) -> None:
    """Saves tensors as a safetensors file, byte for byte as safetensors.torch.save_file does.

    Args:
        tensors: Names and tensors, dense, contiguous, and none sharing memory with another.
        filename: A path, as str or os.PathLike, or a uri.
        metadata: Texts to store along. Written sorted by key; the order of safetensors is another each time.

    Raises:
        ValueError: A tensor that is not dense, or not contiguous.
        RuntimeError: Tensors that share memory; a tensor on the meta device.
        KeyError: A dtype that the format lacks.
        SafetensorError: The file could not be written. The old one is there still.
        TypeError: Names or metadata that are not texts.
    """
    check_tensors(tensors)
    with writing():
        write_file(tensors, checked_filename(filename), force_clone_shared_tensor=True, metadata=metadata)


def save(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of the file that save_file() would write, as safetensors.torch.save gives them; never encrypted.

    Raises:
        As save_file().
    """
    check_tensors(tensors)
    return file_bytes(tensors, metadata)


def save_model(
    model: torch.nn.Module, filename: Filename, metadata: dict[str, str] | None = None, force_contiguous: bool = True
) -> None:
    """Saves a module's state dict, as safetensors.torch.save_model does: of tensors that share memory one is written, and the
    metadata note the others' names.

    Args:
        model: The module.
        filename, metadata: As for save_file(). Unlike safetensors' it leaves the caller's dict as it is.
        force_contiguous: Save non-contiguous tensors as contiguous ones; False refuses them.

    Raises:
        As save_file(). RuntimeError where none of the tensors that share a memory is all of it.
    """
    state_dict = model.state_dict()
    texts = metadata
    for kept, others in _remove_duplicate_names(state_dict).items():
        texts = {**dict.fromkeys(others, kept), **(texts or {})}
        for name in others:
            del state_dict[name]
    if force_contiguous:
        state_dict = {name: tensor.contiguous() for name, tensor in state_dict.items()}
    try:
        save_file(state_dict, filename, metadata=texts)
    except ValueError as error:
        raise ValueError(
            f"{error} Or use save_model(..., force_contiguous=True), read the docs for potential caveats."
        ) from error


def load_model(
    model: torch.nn.Module,
    filename: Filename,
    strict: bool = True,
    device: MapLocation | None = "cpu",
    *,
    backend: str = "mmap",
) -> tuple[set[str], list[str]]:
    """Loads a file into a module, as safetensors.torch.load_model does: of tensors that share memory the file may have any.

    Args:
        model: The module.
        strict: Raise where names are missing or left over.
        filename, device, backend: As for load_file().

    Returns:
        The names that the file lacks, and those that the module lacks.

    Raises:
        RuntimeError: With strict, names are missing or left over; a shape does not fit.
        And as load_file().
    """
    tensors = load_file(filename, device=device, backend=backend)
    duplicates = _remove_duplicate_names(model.state_dict(), preferred_names=tensors)
    absent, unexpected = model.load_state_dict(tensors, strict=False)
    missing = set(absent)
    for name in (name for names in duplicates.values() for name in names):
        if name in missing:
            missing.remove(name)  # it shares the memory of one that was loaded
        else:
            unexpected.append(name)
    if strict and (missing or unexpected):
        lines = [f"Error(s) in loading state_dict for {type(model).__name__}:"]
        if missing:
            lines.append(f"    Missing key(s) in state_dict: {_quoted(missing)}")
        if unexpected:
            lines.append(f"    Unexpected key(s) in state_dict: {_quoted(unexpected)}")
        raise RuntimeError("\n".join(lines))
    return missing, unexpected


def _tobytes(tensor: torch.Tensor, name: str) -> bytes:
    """The bytes of a tensor, as a file has them: for libraries that import it from older releases of safetensors."""
    check_tensors({name: tensor})
    memory = tensor.detach().resolve_conj().resolve_neg().cpu()
    return ctypes.string_at(memory.data_ptr(), memory.nbytes) if memory.nbytes else b""


def _flatten(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """What older releases of safetensors wrote: {name: {"dtype": "float32", "shape": ..., "data": bytes}}."""
    check_tensors(tensors)
    return {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": tensor.shape, "data": _tobytes(tensor, name)}
        for name, tensor in tensors.items()
    }


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))
