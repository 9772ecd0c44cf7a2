"""Saving a model as several files and their index, under the names and in the form that transformers reads."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import torch

from veturboio._arguments import FilePath, local_path, operator_path
from veturboio._cipher import Bytes
from veturboio._errors import python_errors
from veturboio._files import exists, is_local
from veturboio._io_helper import IOHelper, init_io_helper
from veturboio._jobs import warn
from veturboio._library import ops
from veturboio._progress import PartsReport, Progress, reporting
from veturboio._save import checked_metadata, tensors_to_write, with_aliases, write_file
from veturboio._shards import FILE_SUFFIX, INDEX_SUFFIX, NUMBER_PATTERN, in_directory, is_file_name

_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}

_HIDDEN_END = ".veturboio-tmp"
# How long to wait for another process that removes what killed saves have left.
_LOCK_SECONDS = 1.0


def save_sharded(
    state_dict: Mapping[str, torch.Tensor],
    directory: FilePath,
    max_shard_size: int | str = "5GB",
    *,
    name: str = "model",
    metadata: Mapping[str, str] | None = None,
    force_contiguous: bool = True,
    force_save_shared_tensor: bool = False,
    force_clone_shared_tensor: bool = False,
    use_cipher: bool | None = None,
    helper: IOHelper | None = None,
    enable_fast_mode: bool = True,
    progress: Progress = False,
    key: Bytes | None = None,
    iv: Bytes | None = None,
) -> None:
    """Saves tensors as safetensors files of a limited size and an index of them, as transformers' save_pretrained does.

    They are `model-00001-of-00003.safetensors` and so on and `model.safetensors.index.json`; what fits into one file is
    `model.safetensors`, without an index. The tensors keep their order: a file is full where the next would not fit, and one
    that is larger than the limit has a file of its own.

    On a local disk all files are complete and safe before the first of them takes its name, and what earlier saves of this name
    left that is no part of the new model is removed last. So a save that fails leaves the old model as it was, and one that is
    killed leaves the old or the new; only where both have the same number of files, and it is killed in the moment in which
    these take their names, are new files among old ones. The same may be where a file cannot be renamed any more after others
    were. What is left of a killed save, hidden files, the next one of this name removes on local disks and in memory, unless
    others save into the directory just then.
    Where files cannot be renamed (in remote storage, on some mounts) each is written under its name, one after the other and
    the index last: a save that does not end may leave new files among old ones of the same names. In remote storage none are
    removed.

    Args:
        state_dict: Names and tensors, on any devices.
        directory: A path, or a uri: file://PATH, sfcs://PATH. A local one is made if it is not there.
        max_shard_size: The most bytes of tensors in a file: an int, or text as "5GB", "500MB" (powers of ten), "5GiB" (of two).
        name: What the files' names begin with.
        metadata: Texts to store along, in each file, besides {"format": "pt"}, without which transformers refuses a file.
        force_contiguous, force_save_shared_tensor, force_clone_shared_tensor, helper, enable_fast_mode, progress: As for
            save_file(). A tensor that another one stands for is noted in the metadata of that one's file and not listed in the
            index, which names what the files hold.
        use_cipher, key, iv: As for save_file(). The index stays plain: it tells the tensors' names. A key and IV of yours
            encrypt every file, of which a warning tells; with VETURBOIO_CIPHER_HEADER=1 each has a key of its own.

    Raises:
        As save_file(). ValueError: max_shard_size is no size, or name no part of a file's name.
    """
    limit = _bytes_of(max_shard_size)
    if not is_file_name(name):
        raise ValueError(f"name is {name!r}, and has to be the first part of a file's name")
    texts = {"format": "pt", **(checked_metadata(metadata) or {})}
    tensors, dropped = tensors_to_write(
        state_dict, force_contiguous=force_contiguous, save_one=force_save_shared_tensor, save_each=force_clone_shared_tensor
    )
    sizes = {tensor_name: tensor.numel() * tensor.itemsize for tensor_name, tensor in tensors.items()}
    shards = _file_names(_split(sizes, limit), name)
    file_of = {tensor_name: file for file, names in shards.items() for tensor_name in names}
    texts_of = {
        file: with_aliases(texts, {alias: kept for alias, kept in dropped.items() if file_of[kept] == file}) for file in shards
    }
    index = f"{name}{FILE_SUFFIX}{INDEX_SUFFIX}"
    helper = init_io_helper() if helper is None else helper
    with closing(_Place(directory, name)) as place:
        # Where an old index cannot be removed it would go on to stand for the old model.
        has_index = len(shards) > 1 or (not place.is_local and exists(place.path(index)))
        total = sum(sizes.values())
        with reporting(local_path(directory), progress) as report:
            parts = PartsReport(report, total)
            for file, names in shards.items():
                parts.begin(sum(sizes[tensor_name] for tensor_name in names))
                write_file(
                    {tensor_name: tensors[tensor_name] for tensor_name in names},
                    place.new_path(file),
                    force_clone_shared_tensor=True,  # what becomes of shared ones is decided above
                    metadata=texts_of[file],
                    use_cipher=use_cipher,
                    helper=helper,
                    enable_fast_mode=enable_fast_mode,
                    progress=parts,
                    key=key,
                    iv=iv,
                )
        if has_index:
            warn(_write_text(place.new_path(index), _index_text(file_of, total)), stacklevel=3)
        place.put_new_files()
        place.remove_others({*shards, *([index] if has_index else [])})


class _Place:
    """The directory of a save: where its files are written, and how they take their names."""

    def __init__(self, directory: FilePath, name: str) -> None:
        self.is_local = is_local(directory)
        self._directory = local_path(directory)
        self._name = name
        self._new: dict[str, str] = {}  # the names of files, and those under which they are written
        self._old: dict[str, str | None] = {}  # of files that are being replaced, and names that the old ones have as well
        self._modes: dict[str, int] = {}  # of files that are being replaced
        self._lock: int | None = None
        self._renames = False
        if self.is_local:
            Path(self._directory).mkdir(parents=True, exist_ok=True)
            self._lock_directory()
            try:
                self._renames = self._can_rename()
            except BaseException:
                self.close()
                raise

    def path(self, file: str) -> str:
        return in_directory(self._directory, file)

    def new_path(self, file: str) -> str:
        """Where to write a file."""
        if not self._renames:
            return self.path(file)
        temporary = self._new[file] = _temporary_name(file)
        with suppress(FileNotFoundError):
            self._modes[file] = Path(self.path(file)).stat().st_mode & 0o777
            self._create(temporary)  # a save of it leaves the mode, so nobody else reads it before it has the old file's
        return self.path(temporary)

    def put_new_files(self) -> None:
        """Gives the files their names, in the order in which they were written. Where one cannot have its name, or Ctrl-C
        comes, the old files get theirs back."""
        if not self._renames:
            return
        try:
            for file, temporary in self._new.items():
                if file.endswith(INDEX_SUFFIX):
                    self._sync()  # it is not to be there before what it names, not after a power failure either
                self._keep_old(file)
                if file in self._modes:
                    with suppress(OSError):  # this file system has no modes, or lets nobody set them
                        Path(self.path(temporary)).chmod(self._modes[file])
                Path(self.path(temporary)).replace(self.path(file))
        except BaseException:
            self._put_old_files()
            raise
        self._sync()

    def close(self) -> None:
        """Removes the files that have not taken their names, and the old ones' other names."""
        try:
            for temporary in (*self._new.values(), *self._old.values()):
                if temporary is not None:
                    Path(self.path(temporary)).unlink(missing_ok=True)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def remove_others(self, written: set[str]) -> None:
        """Removes what earlier saves with this name have left."""
        if not self.is_local:
            return
        of_this_name = re.compile(self._file_pattern())
        others = [
            path for path in Path(self._directory).iterdir() if of_this_name.fullmatch(path.name) and path.name not in written
        ]
        # The index first: it is not to name files that are gone.
        for path in sorted(others, key=lambda path: not path.name.endswith(INDEX_SUFFIX)):
            path.unlink(missing_ok=True)

    def _file_pattern(self) -> str:
        return rf"{re.escape(self._name)}({NUMBER_PATTERN})?\.safetensors(\.index\.json)?"

    def _lock_directory(self) -> None:
        """Has the directory locked together with all others who save into it now, where that is seen by all. Whoever finds that
        nobody else does so removes what killed saves have left."""
        with suppress(OSError):  # a directory that may not be listed, or a file system that does not lock
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            if not ops.is_on_local_file_system(self._lock):
                return
            with suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove_abandoned()
            # One who removes them is waited for, but not who has locked the directory for reasons of his own.
            deadline = time.monotonic() + _LOCK_SECONDS
            while time.monotonic() < deadline:
                with suppress(BlockingIOError):
                    fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return
                time.sleep(0.01)

    def _remove_abandoned(self) -> None:
        # The second ending is that of a file which was still being written.
        end = re.escape(_HIDDEN_END)
        abandoned = re.compile(rf"\.\.?{self._file_pattern()}\.[0-9a-f]{{8}}{end}(\.[0-9a-f]{{16}}{end})?")
        for path in Path(self._directory).iterdir():
            if abandoned.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()

    def _create(self, file: str) -> None:
        os.close(os.open(self.path(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))

    def _keep_old(self, file: str) -> None:
        # Known before it is there, so that it is removed whenever Ctrl-C comes.
        other_name = self._old[file] = _temporary_name(file)
        try:
            os.link(self.path(file), self.path(other_name), follow_symlinks=False)
        except FileNotFoundError:
            self._old[file] = None
        except OSError:  # this file system has no links
            del self._old[file]

    def _put_old_files(self) -> None:
        for file, other_name in self._old.items():
            with suppress(OSError):  # as many as can be
                if other_name is not None:
                    Path(self.path(other_name)).replace(self.path(file))
                else:
                    Path(self.path(file)).unlink(missing_ok=True)

    def _can_rename(self) -> bool:
        probe = f"{self._name}{FILE_SUFFIX}"
        before, after = Path(self.path(_temporary_name(probe))), Path(self.path(_temporary_name(probe)))
        self._create(before.name)
        try:
            before.replace(after)
        except OSError:
            before.unlink(missing_ok=True)
            return False
        after.unlink()
        return True

    def _sync(self) -> None:
        with suppress(OSError):  # of file systems that do not sync directories, saving a file has warned
            descriptor = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _temporary_name(file: str) -> str:
    return f".{file}.{secrets.token_hex(4)}{_HIDDEN_END}"


def _bytes_of(size: int | str) -> int:
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise TypeError(f'max_shard_size must be an int or text as "5GB", not {type(size).__name__}')
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", size, re.IGNORECASE | re.ASCII)
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ValueError(f'max_shard_size is "{size}": give a number of bytes, or text as "5GB", "500MB", "5GiB"')
        size = int(float(match[1]) * unit)
    if size <= 0:
        raise ValueError(f"max_shard_size is {size} bytes: it must be positive")
    return size


def _split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """The names in each file. What is too large for any has one to itself, and the file that is being filled goes on after it."""
    shards: list[list[str]] = []
    filling: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if size > limit:
            shards.append([name])
        elif filled + size > limit:
            shards.append(filling)
            filling, filled = [name], size
        else:
            filling.append(name)
            filled += size
    if filling or not shards:
        shards.append(filling)
    return shards


def _file_names(shards: list[list[str]], name: str) -> dict[str, list[str]]:
    if len(shards) == 1:
        return {f"{name}{FILE_SUFFIX}": shards[0]}
    return {f"{name}-{number:05d}-of-{len(shards):05d}{FILE_SUFFIX}": names for number, names in enumerate(shards, 1)}


def _index_text(weight_map: Mapping[str, str], total_size: int) -> str:
    return json.dumps({"metadata": {"total_size": total_size}, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"


def _write_text(path: str, text: str) -> list[str]:
    """Replaces a file as a save does; returns its warnings."""
    with python_errors():
        writer = torch.classes.veturbo.FileWriter(operator_path(path), None)
    try:
        with python_errors():
            writer.write(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))
            warnings: list[str] = writer.commit()
    except BaseException:
        writer.discard()  # not before the error is known: an operator forgets the last one's
        raise
    return warnings
