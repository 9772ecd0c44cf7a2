"""Files made of raw memory, and files as bytes."""

from __future__ import annotations

import ctypes
import io
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from veturboio._errors import python_errors
from veturboio._library import ops
from veturboio._reader import ModelReader
from veturboio._reader import open as open_model
from veturboio._save import checked_metadata, tensors_to_write, write_file
from veturboio.safetensors._arguments import Filename, checked_filename, checked_text
from veturboio.safetensors._dtypes import FORMAT_NAMES, PACKED, TORCH_DTYPES, element_bits
from veturboio.safetensors._errors import SafetensorError, reading, writing
from veturboio.safetensors._open import data_offsets

_LARGEST = (1 << 64) - 1


class TensorSpec:
    """Where the bytes of a tensor are in memory, and what they mean: what serialize() and serialize_file() take.

    Args:
        dtype: As PyTorch and NumPy name it: "float32". The attribute is the format's word: "F32".
        shape: As PyTorch has it. The attribute has that of the file: the last dimension of float4_e2m1fn_x2 is doubled.
        data_ptr, data_len: The address and the number of the bytes, which must stay there as long as they are written.

    Raises:
        SafetensorError: The format has no such dtype.
    """

    __slots__ = ("_data_len", "_data_ptr", "_dtype", "_shape")

    def __init__(self, *, dtype: str, shape: Sequence[int], data_ptr: int, data_len: int) -> None:
        word = FORMAT_NAMES.get(checked_text(dtype, "dtype"))
        if word is None:
            raise SafetensorError(f'Unknown dtype "{dtype}". Supported dtypes: {", ".join(FORMAT_NAMES)}')
        if not isinstance(shape, Sequence) or isinstance(shape, str | bytes):
            raise TypeError(f"argument 'shape': {type(shape).__name__!r} object is not an instance of 'Sequence'")
        self._dtype = word
        self._shape = [_unsigned(size) for size in shape]
        if word == PACKED and self._shape:
            self._shape[-1] *= 2
        self._data_ptr = _unsigned(data_ptr)
        self._data_len = _unsigned(data_len)

    @property
    def dtype(self) -> str:
        return self._dtype

    @property
    def shape(self) -> list[int]:
        return list(self._shape)

    @property
    def data_ptr(self) -> int:
        return self._data_ptr

    @property
    def data_len(self) -> int:
        return self._data_len

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __repr__(self) -> str:
        return f"TensorSpec(dtype={self._dtype!r}, shape={self._shape}, data_ptr={self._data_ptr}, data_len={self._data_len})"


def serialize(tensor_dict: dict[str, TensorSpec], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a file with these tensors, as safetensors.serialize makes them; keys of the metadata are sorted.

    Raises:
        SafetensorError: A shape and dtype that do not make up the length of the memory.
        TypeError: Something that is not a TensorSpec, or metadata that are not texts.
    """
    return file_bytes(_tensors_over(tensor_dict), metadata)


def serialize_file(tensor_dict: dict[str, TensorSpec], filename: Filename, metadata: dict[str, str] | None = None) -> None:
    """Writes these tensors as a file, as safetensors.serialize_file does: see veturboio.save_file() for what it promises.

    Raises:
        SafetensorError: As serialize(), or the file could not be written.
        TypeError: As serialize().
    """
    tensors = _tensors_over(tensor_dict)
    with writing():
        write_file(tensors, checked_filename(filename), force_clone_shared_tensor=True, metadata=metadata)


def deserialize(bytes: Any) -> list[tuple[str, dict[str, Any]]]:
    """The tensors in the bytes of a file, in the order of the data: (name, {"dtype": "F32", "shape": [2, 3], "data": bytearray}).

    Unlike safetensors' it takes a bytearray or a memoryview, too.

    Raises:
        SafetensorError: The file is damaged.
        TypeError: It is not bytes.
    """
    with reading("bytes", "deserializing"), open_bytes(bytes) as reader:
        offsets = data_offsets(reader)
        content = memoryview(bytes).cast("B")
        data = content[len(content) - sum(end - begin for begin, end in offsets.values()) :]
        infos = {name: reader.info(name) for name in offsets}
        return [
            (name, {"dtype": infos[name].dtype, "shape": list(infos[name].shape), "data": bytearray(data[begin:end])})
            for name, (begin, end) in offsets.items()
        ]


def file_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> bytes:
    """A file with these tensors, unencrypted. Those that share memory are each in it in full."""
    texts = checked_metadata(metadata)
    whole, _ = tensors_to_write(tensors, force_contiguous=True, save_one=False, save_each=True)
    with python_errors():
        file = ops.serialize(whole, metadata=texts)
    return ctypes.string_at(file.data_ptr(), file.nbytes)


def open_bytes(data: Any) -> ModelReader:
    """Opens a file of which these are the bytes."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"argument 'bytes': {type(data).__name__!r} object is not an instance of 'bytes'")
    # Bytes that hold no file at all might be a path; what is read of a BytesIO is the very object that it was made of.
    return open_model(io.BytesIO(data) if isinstance(data, bytes) else data)


def _unsigned(number: Any) -> int:
    value = operator.index(number)
    if value < 0:
        raise OverflowError("can't convert negative int to unsigned")
    if value > _LARGEST:
        raise OverflowError("int too big to convert")
    return value


def _tensors_over(specs: Any) -> dict[str, torch.Tensor]:
    """Tensors over the memory that is described, of which nothing is copied."""
    if not isinstance(specs, dict):
        raise TypeError(f"argument 'tensor_dict': {type(specs).__name__!r} object is not an instance of 'dict'")
    for name, spec in specs.items():
        checked_text(name, "tensor_dict")
        if not isinstance(spec, TensorSpec):
            raise TypeError(f"argument 'tensor_dict': {type(spec).__name__!r} object is not an instance of 'TensorSpec'")
    return {name: _tensor_over(spec) for name, spec in specs.items()}


def _tensor_over(spec: TensorSpec) -> torch.Tensor:
    bits = math.prod(spec.shape) * element_bits(spec.dtype)
    if bits > _LARGEST:
        raise SafetensorError("Error while serializing: overflow computing buffer size from shape and/or element type")
    if bits != 8 * spec.data_len or (spec.data_ptr == 0 and spec.data_len > 0):
        raise SafetensorError("Error while serializing: invalid shape, data type, or offset for tensor")
    shape = spec.shape
    if spec.dtype == PACKED:
        shape[-1] //= 2
    dtype = TORCH_DTYPES[spec.dtype]
    if spec.data_len == 0:
        return torch.empty(shape, dtype=dtype)
    memory = (ctypes.c_ubyte * spec.data_len).from_address(spec.data_ptr)
    return torch.frombuffer(memory, dtype=torch.uint8).view(dtype).reshape(shape)
