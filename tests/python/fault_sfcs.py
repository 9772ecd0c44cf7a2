"""Loads and saves in SFCS whose client library fails them, under scenarios drawn by a seed."""

from __future__ import annotations

import collections
import errno
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from fault_far import COUNT, OPERATIONS, Client, Outcome
from fault_operations import Load, Save, Site, ViolationError, describe
from fresh_process import ForkedPython

from fakes.cloudfs import FakeCloudfs

LIBRARY_ERRORS = ("EACCES", "EIO", "ETIMEDOUT", "ECONNRESET")
TRANSIENT = ("EIO", "ETIMEDOUT", "ECONNRESET")
LOAD_CALLS = ("cfsBuilderConnect", "cfsGetPathInfo", "cfsOpenFile", "cfsPread", "cfsCloseFile")
SAVE_CALLS = (
    *("cfsBuilderConnect", "cfsGetPathInfo", "cfsGetDefaultBlockSize", "cfsCreateDirectory", "cfsOpenFileAcc", "cfsWrite"),
    *("cfsHSync", "cfsConcat", "cfsRename2", "cfsDelete", "cfsCloseFile"),
)
# Files cannot be mapped there, directories not be listed, and several files not replaced at once.
LEFT_OUT = ("load, mapped", "load, torch file mapped", "load, several files", "save_sharded")
# What is done for order's sake: it is told of, and the load or save is none the worse for it. A directory may be there already.
UNNECESSARY = ("cfsDelete", "cfsCreateDirectory")
URI = "sfcs://site"
FOLDER = "site"


@dataclass(frozen=True)
class Scenario:
    operation: str
    variables: tuple[tuple[str, str], ...]  # of the stand-in
    function: str = ""
    which: str = ""
    error: str = ""
    after: bool = False

    def __str__(self) -> str:
        return f"{self.operation}: {dict(self.variables)}"

    @property
    def kind(self) -> str:
        return f"{self.function} {self.error}" if self.function else self.variables[0][0]


# Nothing of the machine's own settings.
NOWHERE = {"DATAPIPE_SOCKET_PATH": "/nowhere", "SFCS_METAINFO_PATH": "/nowhere", "CREDENTIAL_PATH": "/nowhere"}


@contextmanager
def campaign() -> Iterator[Campaign]:
    with FakeCloudfs() as cluster, closing(ForkedPython()) as python:
        yield Campaign(cluster, python)


class Campaign:
    def __init__(self, cluster: FakeCloudfs, python: ForkedPython) -> None:
        self._cluster = cluster
        self._site = Site(cluster.files / FOLDER, COUNT)
        self._client = Client(python, self._site.root, URI)
        self._prepared: dict[str, tuple[dict[str, bytes], dict[str, bytes], collections.Counter[str]]] = {}
        self.ends: collections.Counter[tuple[str, str, str]] = collections.Counter()

    def scenario(self, seed: int) -> Scenario:
        draw = random.Random(seed)
        operation = draw.choice([name for name in OPERATIONS if name not in LEFT_OUT])
        effect = draw.choice(("fail", "fail", "fail", "short", "slow"))
        if effect == "short":
            return Scenario(operation, (("FAKE_CLOUDFS_SHORT", str(draw.randrange(1 << 30))),))
        if effect == "slow":
            return Scenario(operation, (("FAKE_CLOUDFS_DELAY_MS", str(draw.choice((1, 5, 20)))),))
        calls = self._prepare(operation)[2]
        functions = LOAD_CALLS if isinstance(OPERATIONS[operation], Load) else SAVE_CALLS
        function = draw.choice([name for name in functions if calls[name] > 0])
        number = draw.randint(1, calls[function])
        which = draw.choice((str(number), str(number), f"{number}+", "*", "20%"))
        error = draw.choice((*LIBRARY_ERRORS, "ENOSPC") if function == "cfsWrite" else LIBRARY_ERRORS)
        after = draw.random() < 0.2
        fault = f"{function}:{which}:{error}{':after' if after else ''}"
        variables = (("FAKE_CLOUDFS_FAIL", fault), ("FAKE_CLOUDFS_SEED", str(seed)))
        return Scenario(operation, variables, function, which, error, after)

    def run(self, scenario: Scenario) -> None:
        operation = OPERATIONS[scenario.operation]
        old, new, _ = self._prepare(scenario.operation)
        for path in self._site.target.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        self._site.put_back(old)
        outcome = self._start(scenario.operation, dict(scenario.variables))
        hits = [
            call for call in self._cluster.calls(scenario.function or None) if scenario.error and call.error == scenario.error
        ]
        self._check_end(scenario, outcome, len(hits))
        [end] = self._cluster.exits()
        if outcome.left or end.left_open:
            raise ViolationError(f"left in the process: {outcome.left} {end.left_open}")
        found = self._files()
        visible = {name: content for name, content in found.items() if name == "model"}
        may_be = [old] if outcome.error else [new]
        if scenario.after and outcome.error and scenario.function == "cfsRename2":
            may_be.append(new)  # it has been done, and there is no telling
        if visible not in may_be:
            raise ViolationError(f"{outcome.error or 'it ended well'}, and left {describe(found, old, new)}")
        if found != visible and scenario.function != "cfsDelete" and not (outcome.error and not scenario.which.isdigit()):
            raise ViolationError(f"beside the file there are {sorted(found)}")
        if found != visible and isinstance(operation, Save):
            self._start(scenario.operation, {})
            if self._files() != new:
                raise ViolationError(f"the next save left {describe(self._files(), old, new)}")
        self.ends[scenario.operation, scenario.kind, outcome.error or ("well" if hits or not scenario.error else "not hit")] += 1

    def _check_end(self, scenario: Scenario, outcome: Outcome, hits: int) -> None:
        must_fail = scenario.which == "*" and scenario.function not in (*UNNECESSARY, "cfsCloseFile") and not scenario.after
        passes = scenario.error in TRANSIENT and scenario.which.isdigit() and scenario.function != "cfsCloseFile"
        must_end_well = hits == 0 or scenario.function == "cfsDelete" or passes
        if outcome.error and must_end_well:
            raise ViolationError(f"had to end well: {outcome}")
        if not outcome.error and hits and must_fail:
            raise ViolationError("had to fail")
        if not outcome.error:
            return
        code = getattr(errno, scenario.error)
        if scenario.function not in outcome.said or URI not in (outcome.said if outcome.error == "command" else outcome.file):
            raise ViolationError(f"does not tell what failed, and where: {outcome}")
        if outcome.code != code if outcome.error != "command" else os.strerror(code) not in outcome.said:
            raise ViolationError(f"does not tell why: {outcome}")
        if scenario.function == "cfsPread" and "(at byte " not in outcome.said:
            raise ViolationError(f"does not tell where in the file: {outcome}")

    def _prepare(self, name: str) -> tuple[dict[str, bytes], dict[str, bytes], collections.Counter[str]]:
        """What a save finds and makes, and how often which function is called."""
        if name not in self._prepared:
            old = {"model": b"an old model\n" * 100} if isinstance(OPERATIONS[name], Save) else {}
            self._site.put_back(old)
            outcome = self._start(name, {})
            if outcome.error or outcome.left:
                raise ViolationError(f"{name} without a fault: {outcome}")
            calls = collections.Counter(call.function for call in self._cluster.calls())
            if old and (read := self._start(name, {}, read_back=True)).error:
                raise ViolationError(f"{name} without a fault: {read}")
            self._prepared[name] = old, self._files(), calls
        return self._prepared[name]

    def _start(self, operation: str, variables: dict[str, str], *, read_back: bool = False) -> Outcome:
        self._cluster.forget_calls()
        return self._client.run(operation, self._cluster.environment(**NOWHERE, **variables), read_back=read_back)

    def _files(self) -> dict[str, bytes]:
        """All that is in the folder that is saved into, in folders of it, too."""
        root = self._site.target
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
