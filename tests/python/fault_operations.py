"""What the campaign of faults does with files: every way to load, and every way to save over an existing model."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sample_tensors import assert_same, sample

import veturboio
from veturboio import cipher, convert

KEY = bytes(range(16))
IV = bytes(range(16, 32))
CIPHER = {"key": KEY, "iv": IV}

OLD = b"an old model, to stay as it is or to be replaced as a whole\n" * 100
#: That of save_sharded(), in as many files as the new one, whose names a save then takes one after the other.
OLD_SEED = 100


class CommandFailedError(Exception):
    """A command did not do its work; the text is what it printed on standard error."""


class ViolationError(Exception):
    """Something that must not be."""


def tensors(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """A model of `count` times 1000 numbers, and what is small."""
    dtypes = (torch.bfloat16, torch.float32, torch.int64, torch.uint8)
    made = {f"layer.{i}": sample(dtype, count, 1000, seed=seed + i) for i, dtype in enumerate(dtypes)}
    return {**made, "bias": sample(torch.float32, 7, seed=seed), "empty": torch.empty(0, 3), "scalar": torch.tensor(3)}


class Model(torch.nn.Module):
    """One that has these tensors."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._state = state

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return dict(self._state)


class Site:
    """A folder with a model in each form, to load, and one to save into."""

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.tensors = tensors(count)
        self.old_tensors = tensors(count, OLD_SEED)
        self.source = root / "in"
        self.target = root / "out"
        self.source.mkdir(parents=True)
        self.target.mkdir()
        (root / "key").write_bytes(KEY)
        (root / "iv").write_bytes(IV)
        veturboio.save_file(self.tensors, self.source / "model.safetensors")
        self.plain = (self.source / "model.safetensors").read_bytes()
        veturboio.save_file(self.tensors, self.source / "model.encrypted", **CIPHER)
        torch.save(self.tensors, self.source / "model.pt")
        torch.save(self.tensors, self.source / "legacy.pt", _use_new_zipfile_serialization=False)
        veturboio.save_pt(self.tensors, self.source / "model.pt.encrypted", **CIPHER)
        veturboio.save_sharded(self.tensors, self.source / "sharded", self.shard_bytes)

    @property
    def shard_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values()) // 2

    def files(self) -> dict[str, bytes]:
        """What is in the folder that is saved into."""
        return {path.name: path.read_bytes() for path in self.target.iterdir()}

    def put_back(self, files: dict[str, bytes]) -> None:
        for path in self.target.iterdir():
            path.unlink()
        for name, content in files.items():
            (self.target / name).write_bytes(content)


def describe(found: dict[str, bytes], old: dict[str, bytes], new: dict[str, bytes]) -> str:
    def state(name: str) -> str:
        content = found[name]
        return "old" if content == old.get(name) else "new" if content == new.get(name) else f"{len(content)} other bytes"

    return ", ".join(f"{name}: {state(name)}" for name in sorted(found)) or "nothing"


Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Load:
    """`run` returns tensors of the model, or all of them; it is they that are looked at."""

    name: str
    run: Callable[[Site], Tensors]
    parts: bool = False
    by_torch: bool = False  # whose calls to the system are in part PyTorch's

    def check(self, site: Site, found: Tensors) -> None:
        expected = {name: tensor for name, tensor in site.tensors.items() if not self.parts or name in found}
        assert found, "nothing was loaded"
        assert_same(found, expected)


@dataclass(frozen=True)
class Save:
    """`load` reads back what `run` has saved."""

    name: str
    run: Callable[[Site], None]
    load: Callable[[Site], Tensors]
    #: Makes what is there before, where that is not a file of the name.
    old: Callable[[Site], None] | None = None
    by_torch: bool = False

    def prepare(self, site: Site) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """What is there before and, as it has to be, afterwards."""
        site.put_back({})
        if self.old is None:
            site.put_back({"model": OLD})
        else:
            self.old(site)
        old = site.files()
        self.run(site)
        assert_same(self.load(site), site.tensors)
        return old, site.files()


def _load_into(site: Site) -> Tensors:
    state = {name: torch.zeros_like(tensor) for name, tensor in site.tensors.items()}
    return veturboio.load(site.source / "model.safetensors", state_dict=state)


def _slice(site: Site) -> Tensors:
    with veturboio.open(site.source / "model.safetensors") as model:
        columns = model.slice("layer.1")[:, 100:900:2]
        assert_same({"": columns}, {"": site.tensors["layer.1"][:, 100:900:2]})
        return {"layer.3": model.slice("layer.3")[:]}


def _stream(site: Site) -> Tensors:
    return {name: tensor.clone() for name, tensor in veturboio.stream(site.source / "model.safetensors")}


def _to_shmem(file: str, **options: bytes) -> Callable[[Site], Tensors]:
    def run(site: Site) -> Tensors:
        memory = veturboio.load_to_shmem(site.source / file, **options)
        try:
            return veturboio.load(bytes(memory.buf[: len(site.plain)]), use_cipher=False)
        finally:
            memory.close()
            memory.unlink()

    return run


def _load(file: str, **options: object) -> Callable[[Site], Tensors]:
    return lambda site: veturboio.load(site.source / file, **options)  # type: ignore[arg-type]


def _saved(**options: bytes) -> Callable[[Site], Tensors]:
    return lambda site: veturboio.load(site.target / "model", **options)


def _run_command(main: Callable[[list[str]], int], *arguments: object) -> None:
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        status = main([str(argument) for argument in arguments])
    if status != 0:
        raise CommandFailedError(error.getvalue())


def _convert(file: str) -> Callable[[Site], None]:
    def run(site: Site) -> None:
        _run_command(convert.main, "-i", site.source / file, "-o", site.target / "model", "--overwrite")

    return run


def _encrypt(site: Site) -> None:
    keys = ("--key-file", site.root / "key", "--iv-file", site.root / "iv")
    files = ("-i", site.source / "model.safetensors", "-o", site.target / "model")
    _run_command(cipher.main, "encrypt", *files, "--overwrite", *keys)


LOADS = [
    Load("load", _load("model.safetensors")),
    Load("load, slow mode", _load("model.safetensors", enable_fast_mode=False)),
    Load("load, direct", _load("model.safetensors", use_direct_io=True)),
    Load("load, mapped", _load("model.safetensors", mmap=True)),
    Load("load, names", _load("model.safetensors", names=["layer.2", "bias"]), parts=True),
    Load("load, in place", _load_into),
    Load("load, encrypted", _load("model.encrypted", **CIPHER)),
    Load("load, several files", _load("sharded")),
    Load("load, torch file", _load("model.pt"), by_torch=True),
    Load("load, old torch file", _load("legacy.pt"), by_torch=True),
    Load("load, torch file mapped", _load("model.pt", mmap=True), by_torch=True),
    Load("load, torch file encrypted", _load("model.pt.encrypted", **CIPHER), by_torch=True),
    Load("slice", _slice, parts=True),
    Load("stream", _stream),
    Load("load_async", lambda site: veturboio.load_async(site.source / "model.safetensors").result()),
    Load("load_to_shmem", _to_shmem("model.safetensors")),
    Load("load_to_shmem, encrypted", _to_shmem("model.encrypted", **CIPHER)),
]
SAVES = [
    Save("save_file", lambda site: veturboio.save_file(site.tensors, site.target / "model"), _saved()),
    Save(
        "save_file, encrypted", lambda site: veturboio.save_file(site.tensors, site.target / "model", **CIPHER), _saved(**CIPHER)
    ),
    Save("save_model", lambda site: veturboio.save_model(Model(site.tensors), site.target / "model"), _saved()),
    Save("save_pt", lambda site: veturboio.save_pt(site.tensors, site.target / "model"), _saved()),
    Save("save_pt, encrypted", lambda site: veturboio.save_pt(site.tensors, site.target / "model", **CIPHER), _saved(**CIPHER)),
    Save(
        "save_sharded",
        lambda site: veturboio.save_sharded(site.tensors, site.target, site.shard_bytes),
        lambda site: veturboio.load(site.target),
        lambda site: veturboio.save_sharded(site.old_tensors, site.target, site.shard_bytes),
    ),
    Save("convert", _convert("model.pt"), _saved(), by_torch=True),
    Save("convert, old file", _convert("legacy.pt"), _saved(), by_torch=True),
    Save("cipher encrypt", _encrypt, _saved(**CIPHER)),
]
