"""Runs one case of peers.py: has the files that it needs, and lets its modes and its limit take turns."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import veturboio
from cases import DISK, Case
from limits import read_steps, write_steps
from loaders import LOADERS, Load, Loader, data_file
from measure import EXTRA_BYTES, BenchError, Result, Step, load_command, output, progress, take_turns
from model_files import Model
from page_cache import make_cold, make_warm
from peer_environment import python
from savers import CONVERTERS, SAVERS, Converter, Saver
from spare_memory import SpareMemory

_HERE = Path(__file__).resolve().parent
_MARGIN = 2 << 30  # memory for what else there is
# What writes which file, from the model in safetensors.
_WRITERS = {".pt": "torch", ".tensors": "tensorizer", ".aes128": "veturboio AES-128", ".aes256": "veturboio AES-256"}


@dataclass(frozen=True)
class Comparison:
    """What came out of a case: medians and all measurements by name, and why others have none."""

    case: Case
    model: Model
    place: str
    results: dict[str, Result]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def limit(self) -> str | None:
        """The fastest of the limits."""
        limits = [name for name in self.results if name.startswith("limit")]
        return min(limits, key=lambda name: self.results[name].median(self.case.ends[-1])) if limits else None


class Files:
    """The files of one model in one folder, written when they are first needed and removed when they no longer are."""

    def __init__(self, model: Model, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._stem = str(folder / model.name)
        self._there: set[Path] = set()

    @property
    def target(self) -> Path:
        """What saves write."""
        return Path(self._stem + ".saved")

    def path(self, suffix: str) -> Path:
        return Path(self._stem + suffix)

    def have(self, suffixes: set[str], *, target: bool = False) -> dict[str, str]:
        """Leaves these files there, and the model in safetensors, and room for the target. Returns which of them could not be
        written, by suffix, and why.

        Raises:
            BenchError: There is no room for them.
        """
        plain = self.path(".safetensors")
        wanted = {plain} | {self.path(suffix) for suffix in suffixes}
        for file in self._there - wanted:
            self._remove(file)
        missing = wanted - self._there
        self._check_room(len(wanted) + target, len(missing) + target)
        self._folder.mkdir(parents=True, exist_ok=True)
        failed = {}
        for file in sorted(missing, key=lambda file: (file != plain, file)):
            progress(f"writing {file}")
            self._there.add(file)
            try:
                if file == plain:
                    veturboio.save_file(self._model.tensors(), plain, use_cipher=False)
                else:
                    output(save_command("save", _WRITERS[file.suffix], plain, file), f"{file.name} cannot be written")
            except BenchError as error:
                failed[file.suffix] = str(error)
                self._remove(file)
        progress("")
        return failed

    def remove(self) -> None:
        for file in [*self._there, self.target]:
            self._remove(file)

    def _check_room(self, files: int, to_write: int) -> None:
        """Files and the tensors are in memory at the same time, those on a disk in the page cache."""
        size = self._model.nbytes
        existing = next(folder for folder in (self._folder, *self._folder.parents) if folder.exists())
        if (free := shutil.disk_usage(existing).free) < to_write * size:
            raise BenchError(f"no room for {to_write} files of {_gib(size)} in {self._folder}: {_gib(free)} are free")
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if memory < (files + 1) * size + _MARGIN:
            raise BenchError(f"{files} files of {_gib(size)} and a copy do not fit in {_gib(memory)} of memory")

    def _remove(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        self._there.discard(file)


def run(
    case: Case, model: Model, place: str, files: Files, unusable: dict[str, str], wanted: set[str], repeat: int
) -> Comparison:
    """Measures a case. `unusable` are environments and why they cannot be used; `wanted` the modes to measure, empty for all.

    Raises:
        BenchError: Our own could not be measured, or not all gave the same bytes.
    """
    skipped = {}
    modes = []
    for mode in case.modes:
        if (environment := _environment(case, mode)) in unusable:
            skipped[mode] = unusable[environment]
        elif not wanted or mode in wanted or mode == case.ours:
            modes.append(mode)
    if case.action in ("save", "convert"):
        unwritten = files.have({".pt"} if case.action == "convert" else set(), target=True)
    else:
        unwritten = files.have({LOADERS[mode].suffix for mode in modes})
        skipped |= {mode: unwritten[LOADERS[mode].suffix] for mode in modes if LOADERS[mode].suffix in unwritten}
    if unwritten and (case.action == "convert" or case.ours in skipped):
        raise BenchError("; ".join(unwritten.values()))
    modes = [mode for mode in modes if mode not in skipped]
    steps = [_step(case, mode, model, files) for mode in modes]
    try:
        steps += _limit_steps(case, model, place, files)
    except BenchError as error:
        skipped["limit"] = str(error)
    results = take_turns(steps, repeat, _spare_memory(case, model), failed=skipped)
    if case.ours not in results:
        raise BenchError(skipped[case.ours])
    return Comparison(case, model, place, results, skipped)


def save_command(action: str, mode: str, source: Path, target: Path) -> list[str]:
    environment = (SAVERS if action == "save" else CONVERTERS)[mode].environment
    step = {"action": action, "mode": mode, "source": str(source), "target": str(target)}
    return [python(environment), str(_HERE / "one_save.py"), json.dumps(step)]


def _environment(case: Case, mode: str) -> str:
    tables: dict[str, Mapping[str, Loader | Saver | Converter]] = {"save": SAVERS, "convert": CONVERTERS}
    return tables.get(case.action, LOADERS)[mode].environment or ""


def _step(case: Case, mode: str, model: Model, files: Files) -> Step:
    if case.action in ("save", "convert"):
        source = files.path(".safetensors" if case.action == "save" else ".pt")
        remove = lambda: files.target.unlink(missing_ok=True)  # noqa: E731
        return Step(mode, save_command(case.action, mode, source, files.target), lambda: make_warm(source), remove)
    load = Load(mode, data_file(str(files.path("")), mode), model.nbytes)
    command = load_command(load)
    if case.action == "start":
        command = [command[0], str(_HERE / "one_start.py"), command[2]]
    return Step(mode, command, _temperature(case, Path(load.file)))


def _limit_steps(case: Case, model: Model, place: str, files: Files) -> list[Step]:
    if case.limit is None:
        return []
    if case.limit == "write":
        return write_steps(files.target, model.nbytes, on_disk=place == DISK)
    file = files.path(".safetensors")
    return read_steps(case.limit, file, _temperature(case, file))


def _spare_memory(case: Case, model: Model) -> SpareMemory:
    """What a process of this case takes: the tensors, and what is saved of them."""
    if case.action == "start":
        return SpareMemory(0)
    return SpareMemory(model.nbytes * (1 if case.action == "load" else 2) + EXTRA_BYTES)


def _temperature(case: Case, file: Path) -> Callable[[], None]:
    return (lambda: make_cold(file)) if case.cold else (lambda: make_warm(file))


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
