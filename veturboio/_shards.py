"""Models of several files: a directory, or an index that says which file holds each tensor.

The index is the one that transformers writes, `model.safetensors.index.json`: `{"metadata": {...}, "weight_map": {name: file}}`.
It comes from wherever the model does, and is believed in nothing: it names files of its own directory or is refused.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from veturboio._arguments import FilePath, local_path, operator_path
from veturboio._errors import FileFormatError, python_errors, readable
from veturboio._files import is_local

FILE_SUFFIX = ".safetensors"
INDEX_SUFFIX = ".index.json"
NUMBER_PATTERN = r"-\d{5,}-of-\d{5,}"
_NUMBERED = re.compile(rf"{NUMBER_PATTERN}\.safetensors$")
_USUAL_INDEX = "model.safetensors.index.json"
_MOST_INDEX_BYTES = 100_000_000  # as of a file's header, which lists the same names


@dataclass(frozen=True)
class Shards:
    """The files of a model.

    Attributes:
        directory: Where they are, a path or a uri.
        files: Their names in it, sorted.
        index: The path or uri of the index; None without one.
        weight_map: The name of each tensor and that of its file; None without an index.
        metadata: What the index says of the model as a whole ("total_size" mostly); empty without one.
    """

    directory: str
    files: list[str]
    index: str | None = None
    weight_map: dict[str, str] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def path(self, file: str) -> str:
        return in_directory(self.directory, file)

    def paths(self) -> list[str]:
        return [self.path(file) for file in self.files]


def in_directory(directory: str, file: str) -> str:
    """The path, or uri, of a file in a directory."""
    return f"{directory}{'' if directory.endswith('/') else '/'}{file}"


def shard_files(file: FilePath, *, local: bool | None = None) -> Shards | None:
    """The files that a directory or an index stands for; None for any other path or uri, which is that of one file. `local` is
    what is_local() says of it, if that is known.

    In a directory that is `model.safetensors.index.json`, else its only `*.safetensors.index.json`; a directory that has none
    stands for all its `*.safetensors`, but not for `model-00001-of-00002.safetensors` where there is `model.safetensors`.

    Raises:
        FileNotFoundError: A directory without such files, or files that the index names and that are not there, all listed.
        FileFormatError: The index is not one, or names a file outside of its directory.
        ValueError: Which of several indices is meant nobody can say; or a remote directory, which cannot be listed.
        OSError: As open() and scandir() do.
    """
    path = local_path(file)
    if local is None:
        local = is_local(file)
    if path.endswith(INDEX_SUFFIX) and not (local and Path(path).is_dir()):
        return _from_index(path, local=local)
    if not local:
        if path.endswith("/"):
            raise ValueError(f"{path}: a remote directory cannot be listed: give the uri of its index, {path}{_USUAL_INDEX}")
        return None
    # Path(path).is_dir() would take five times as long, which a small model notices.
    return _in_directory(path) if os.path.isdir(path) else None  # noqa: PTH112


def names_to_load(shards: Shards, names: Sequence[Iterable[str]]) -> list[list[str]]:
    """Of each file, in the order of `shards.files`, the names of the tensors that are the model's, given all that it has.

    With an index those are the ones that it puts there; without one all are, and no two files may have the same.

    Raises:
        FileFormatError: A name in two files, without an index; names that the index puts in files that lack them, all listed.
    """
    if shards.weight_map is None:
        return _without_repetition(shards, names)
    chosen = [
        [name for name in of_file if shards.weight_map.get(name) == file]
        for file, of_file in zip(shards.files, names, strict=True)
    ]
    found = {name for of_file in chosen for name in of_file}
    absent: dict[str, list[str]] = {}
    for name, file in shards.weight_map.items():
        if name not in found:
            absent.setdefault(file, []).append(name)
    if absent:
        assert shards.index is not None
        lists = readable("; ".join(f"{file} has no {', '.join(absent[file])}" for file in sorted(absent)))
        raise FileFormatError(f"{shards.index}: tensors are not in the files that the index says: {lists}", shards.index)
    return chosen


def _without_repetition(shards: Shards, names: Sequence[Iterable[str]]) -> list[list[str]]:
    chosen = [list(of_file) for of_file in names]
    first: dict[str, str] = {}
    for file, of_file in zip(shards.files, chosen, strict=True):
        for name in of_file:
            if first.setdefault(name, file) != file:
                raise FileFormatError(
                    f'{shards.directory}: "{readable(name)}" is in {first[name]} and in {file}, and there is no index that says '
                    "which of them is meant: load one file, or give the model a directory of its own",
                    shards.path(file),
                    name,
                )
    return chosen


def _in_directory(directory: str) -> Shards:
    with os.scandir(directory) as entries:
        # A hidden file is what a save left that was killed. A link that leads nowhere is told of when it is opened.
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir())
    indices = [name for name in names if name.endswith(FILE_SUFFIX + INDEX_SUFFIX)]
    if _USUAL_INDEX in indices:
        indices = [_USUAL_INDEX]
    if len(indices) > 1:
        raise ValueError(f"{directory}: has several indices, give the path of one: {', '.join(indices)}")
    if indices:
        return _from_index(in_directory(directory, indices[0]), local=True)
    # Parts beside the whole are of an older or a newer model: of a save that was killed, see save_sharded().
    present = set(names)
    files = [
        name
        for name in names
        if name.endswith(FILE_SUFFIX) and not (_NUMBERED.search(name) and _NUMBERED.sub(FILE_SUFFIX, name) in present)
    ]
    if not files:
        sought = f"The directory has no *{FILE_SUFFIX} file and no *{FILE_SUFFIX}{INDEX_SUFFIX}"
        raise FileNotFoundError(errno.ENOENT, sought, directory)
    return Shards(directory, files)


def _from_index(path: str, *, local: bool) -> Shards:
    weight_map, metadata = _parse(_read(path), path)
    head, slash, _ = path.rpartition("/")
    shards = Shards(head + slash or ".", sorted(set(weight_map.values())), path, weight_map, metadata)
    if local:  # of a remote file that is told when it is opened: to ask takes as long
        absent = [file for file in shards.files if not Path(shards.path(file)).exists()]
        if absent:
            raise FileNotFoundError(
                errno.ENOENT, f"Files that the index names are not there: {readable(', '.join(absent))}", path
            )
    return shards


def _read(path: str) -> bytes:
    with python_errors():
        reader = torch.classes.veturbo.FileReader(operator_path(path), None)
        size = reader.size()
    if size > _MOST_INDEX_BYTES:
        raise FileFormatError(f"{path}: has {size} bytes, an index at most {_MOST_INDEX_BYTES}", path)
    content = torch.empty(size, dtype=torch.uint8)
    with python_errors():
        reader.read_into(content, 0)
    return bytes(content.untyped_storage())


def _parse(content: bytes, path: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The weight map and the metadata of an index."""
    try:
        index = json.loads(content.decode(), object_pairs_hook=_object_of_unique_keys)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: the index is no JSON that can be read: {error}", path) from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise FileFormatError(f'{path}: the index has no "weight_map" of names and files', path)
    for name, file in weight_map.items():
        if not is_file_name(file):
            raise FileFormatError(
                f'{path}: the index has "{readable(name)}" in {file!r}, which is not the name of a file in its directory',
                path,
                name,
            )
    metadata = index.get("metadata", {})
    if not isinstance(metadata, dict):
        raise FileFormatError(f'{path}: the "metadata" of the index is no object', path)
    return weight_map, metadata


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        (repeated, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f'the key "{readable(repeated)}" is there more than once')
    return result


def is_file_name(file: Any) -> bool:
    """Whether it can only be that of something right in a directory."""
    if not isinstance(file, str) or file in ("", ".", "..") or "/" in file or "\0" in file:
        return False
    try:
        file.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write and no file is called by
        return False
    return True
