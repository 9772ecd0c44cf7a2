"""Opening models: one file, several that make up one model, or one in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from veturboio._arguments import FilePath, local_path, operator_path
from veturboio._cipher import Bytes, find_cipher
from veturboio._errors import FileFormatError, TorchFileError, python_errors
from veturboio._files import is_local
from veturboio._jobs import Watch, finish, give_up
from veturboio._library import ops
from veturboio._memory import MEMORY_NAME, Memory, as_tensor, is_memory, read_memory
from veturboio._shards import Shards, names_to_load, shard_files
from veturboio._shared_tensors import aliases

#: Some of a model's names: a list of them, or what tells of each whether it is one.
Names: TypeAlias = "Iterable[str] | Callable[[str], bool]"

_MAX_OPENERS = 16


def title_of(file: FilePath | Memory) -> str:
    """What stands for a model in messages."""
    return MEMORY_NAME if is_memory(file) else local_path(cast(FilePath, file))


class Location:
    """Where a model is, and the keys to it.

    Attributes:
        title: What stands for it in messages.
        paths: Its files; none of a model in memory.
        memory: The bytes of that.
        ciphers: How each file is encrypted, for the operators.
    """

    def __init__(self, file: FilePath | Memory, use_cipher: bool | None, key: Bytes | None, iv: Bytes | None) -> None:
        self.title = title_of(file)
        self.paths: list[FilePath] = []
        self.ciphers: list[Any] = []
        self.memory: bytes | bytearray | memoryview | None = None
        self._shards: Shards | None = None
        if is_memory(file):
            if use_cipher or key is not None or iv is not None:
                raise ValueError(f"{MEMORY_NAME}: only files are decrypted: torch.ops.veturbo.aes_ctr_decrypt_() decrypts memory")
            self.memory = read_memory(cast(Memory, file))
        else:
            path = cast(FilePath, file)
            local = is_local(path)
            self._shards = shard_files(path, local=local)
            self.paths = [path] if self._shards is None else list(self._shards.paths())
            self.ciphers = [find_cipher(path, use_cipher, key, iv, local=local) for path in self.paths]

    def open(self, use_direct_io: bool | None, watch: Watch | None = None) -> Models:
        """Opens the files and reads their headers. TorchFileError when it is one file, and one of torch.save."""
        if self.memory is not None:
            with python_errors():
                return Models(self.title, [ops.open_buffer(as_tensor(self.memory), self.title)])

        try:
            native = self._open_files(use_direct_io, watch)
        except TorchFileError as error:
            if self._shards is None:
                raise
            raise FileFormatError(f"{self.title}: a file of it is not what its name says: {error}", self.title) from None
        if self._shards is None:
            return Models(self.title, native)
        return Models(self.title, native, names_to_load(self._shards, Models(self.title, native).names_of_each()))

    def _open_files(self, use_direct_io: bool | None, watch: Watch | None) -> list[Any]:
        """Several at once: far away each takes a while."""
        is_only = len(self.paths) == 1
        jobs: deque[Any] = deque()
        opened = []
        try:
            for path, cipher in zip(self.paths, self.ciphers, strict=True):
                if len(jobs) == _MAX_OPENERS:
                    opened.append(finish(jobs.popleft(), watch))
                with python_errors():
                    jobs.append(
                        ops.start_open_model(operator_path(path), use_direct_io=use_direct_io, cipher=cipher, is_only=is_only)
                    )
            while jobs:
                opened.append(finish(jobs.popleft(), watch))
        except BaseException:
            give_up(*jobs)
            raise
        return opened


def open_safetensors(
    file: FilePath | Memory, use_direct_io: bool | None, use_cipher: bool | None, key: Bytes | None, iv: Bytes | None
) -> Models:
    """Opens a model for what files of torch.save are not made for: FileFormatError says so of one."""
    location = Location(file, use_cipher, key, iv)
    try:
        return location.open(use_direct_io)
    except TorchFileError:
        raise FileFormatError(
            f"{location.title}: this is a file of torch.save, which can only be loaded as a whole, by load(): convert it with "
            "python -m veturboio.convert",
            location.title,
        ) from None


@dataclass(frozen=True)
class Models:
    """The files of a model, open.

    Attributes:
        title: What stands for the model in messages.
        native: A ModelReader each.
        names: Of each the names of the tensors that are the model's; None for all that one file has.
    """

    title: str
    native: list[Any]
    names: list[list[str]] | None = None

    def names_of_each(self) -> list[list[str]]:
        if self.names is not None:
            return self.names
        with python_errors():
            return [model.list_tensors()[0] for model in self.native]

    def metadata(self) -> dict[str, str] | None:
        """That of all files; where two have the same key, of the first. None if none has any."""
        with python_errors():
            found = [metadata for model in self.native if (metadata := model.metadata()) is not None]
        return {key: value for metadata in reversed(found) for key, value in metadata.items()} if found else None

    def select(self, names: Names | None) -> Selection:
        """Those of its tensors that are asked for. ValueError that lists the names that it does not have."""
        if names is None:
            return Selection(self.names)
        of_each = self.names_of_each()
        everything = [name for of_file in of_each for name in of_file]
        dropped = aliases(self.metadata() or {}, set(everything))
        if callable(names):
            wanted = {name for name in (*everything, *dropped) if names(name)}
        else:
            wanted = checked_names(names)
            if missing := sorted(wanted.difference(everything, dropped)):
                raise ValueError(f"{self.title}: the model has no tensor named {', '.join(missing)}")
        stored = {dropped.get(name, name) for name in wanted}
        return Selection([[name for name in of_file if name in stored] for of_file in of_each], wanted)


@dataclass(frozen=True)
class Selection:
    """Some of a model's tensors.

    Attributes:
        of_each: Of each file the names of those to read, as the operators take them; None for all.
        wanted: The names to hand out, also of tensors that saving has left out; None for all.
    """

    of_each: list[list[str]] | None
    wanted: set[str] | None = None

    def complete(self, tensors: dict[str, Any], metadata: dict[str, str]) -> dict[str, Any]:
        """Adds the tensors that saving has left out, since they share memory with others that were read."""
        for dropped, kept in aliases(metadata, tensors).items():
            tensors[dropped] = tensors[kept]
        if self.wanted is None:
            return tensors
        return {name: tensor for name, tensor in tensors.items() if name in self.wanted}


def checked_names(names: Iterable[str]) -> set[str]:
    if isinstance(names, str):
        raise TypeError("names must be a list of names or a function that tells which to load, not a str")
    wanted = set(names)
    for name in wanted:
        if not isinstance(name, str):
            raise TypeError(f"the name {name!r} of a tensor must be a str, not a {type(name).__name__}")
    return wanted
