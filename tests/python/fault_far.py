"""The campaign's operations on files that are far away, or whose keys are: each in a process of its own, which tells what came of
it."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import torch
from fault_operations import LOADS, SAVES, CommandFailedError, Load, Save, Site, ViolationError, tensors
from fault_traces import Traces
from fresh_process import ForkedPython, environment
from sample_tensors import assert_same
from tqdm import tqdm

#: 6 MB: several parts in SFCS.
COUNT = 400
OPERATIONS: dict[str, Load | Save] = {operation.name: operation for operation in (*LOADS, *SAVES)}


@dataclass(frozen=True)
class Outcome:
    """What came of an operation.

    Attributes:
        error: The exception's type; "" where it ended well.
        code, file: Its errno and filename.
        said: Its text and those of its causes, and the warnings.
        left: What is left of it in the process; "" for nothing.
    """

    error: str
    code: int | None
    file: str
    said: str
    left: str


class UriFolder:
    """A folder of SFCS, in the place of a path."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __truediv__(self, name: str) -> str:
        return f"{self._uri}/{name}"


class FarSite(Site):
    """The files of a site that another process has made, by their uris if they have some. `source`: the folder to load from."""

    def __init__(self, root: Path, uri: str, source: str) -> None:
        self.root = root
        self.tensors = tensors(COUNT)
        self.plain = (root / "in" / "model.safetensors").read_bytes()
        self.source = UriFolder(f"{uri}/{source}") if uri else root / source  # type: ignore[assignment]
        self.target = UriFolder(f"{uri}/out") if uri else root / "out"  # type: ignore[assignment]


class Client:
    """Has the processes started, for one site."""

    def __init__(self, python: ForkedPython, site: Path, uri: str = "", source: str = "in") -> None:
        self._where = (site, uri, source)
        self._python = python

    def run(self, operation: str, variables: dict[str, str], *, read_back: bool = False) -> Outcome:
        """`read_back`: not the save itself, but a load of what it has saved."""
        code = "import sys; sys.path[:0] = sys.argv[1:3]; import fault_far; fault_far.act(*sys.argv[3:])"
        here = Path(__file__).parent
        arguments = (here, here.parent, *self._where, operation, int(read_back))
        said = self._python.run(code, *arguments, env=environment(**variables))
        return Outcome(**json.loads(said))


def act(root: str, uri: str, source: str, name: str, read_back: str) -> None:
    """Prints the Outcome."""
    site, operation = FarSite(Path(root), uri, source), OPERATIONS[name]
    torch.ones(1 << 20).add_(1)  # starts PyTorch's threads
    tqdm.monitor_interval = 0  # or its first bar starts one, which stays
    if "shmem" in name:
        resource_tracker.ensure_running()
    traces = Traces(Path(root))
    outcome = Outcome("", None, "", "", "")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if isinstance(operation, Load):
                operation.check(site, operation.run(site))
            elif read_back == "1":
                assert_same(operation.load(site), site.tensors)
            else:
                operation.run(site)
        except AssertionError as error:
            outcome = Outcome("AssertionError", None, "", f"wrong bytes: {error}", "")
        except Exception as error:
            outcome = _told(error)
    torch.ops.veturbo.disconnect()
    try:
        traces.check()
    except ViolationError as violation:
        outcome = dataclasses.replace(outcome, left=str(violation))
    said = "\n".join((outcome.said, *(str(warning.message) for warning in caught)))
    json.dump(dataclasses.asdict(dataclasses.replace(outcome, said=said)), sys.stdout)


def _told(error: Exception) -> Outcome:
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    kind = "command" if isinstance(error, CommandFailedError) else type(error).__name__
    return Outcome(kind, getattr(error, "errno", None), str(getattr(error, "filename", "")), "\n".join(texts), "")
