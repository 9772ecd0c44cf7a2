"""Loads and saves while the system fails them, under scenarios drawn by a seed.

Each has to end with the right bytes, or with an exception that tells what failed, and where; a save leaves the old model or the
new one, whole. Afterwards no thread, descriptor, mapping or file is there that was not before.

    python tests/python/fault_campaign.py --scenarios 500 --kills 200 --sfcs 200 --servers 200 --seed 1

Prints a table of what came out; 1 is the exit status if anything was not as it has to be.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import enum
import errno
import faulthandler
import gc
import os
import random
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import fault_servers  # noqa: E402
import fault_sfcs  # noqa: E402
from fault_kills import run_kills  # noqa: E402
from fault_operations import LOADS, SAVES, CommandFailedError, Load, Save, Site, ViolationError, describe  # noqa: E402
from fault_traces import Traces  # noqa: E402

import veturboio  # noqa: E402
from fakes.faults import FOR_EVER, HALF, Effect, Fault, Hit, calls_seen, faults, is_preloaded, preloading  # noqa: E402

# A scenario that takes longer hangs.
HANG_SECONDS = 60
# In thousands of elements of each dtype: read and written by the calling thread, and by several, past the page cache.
SIZES = {"small": 20, "large": 1300}


class End(enum.Enum):
    """How a scenario may end."""

    WELL = "well"
    FAILS = "fails"
    EITHER = "either"  # a fault that can be got around, by a cached read say


# Errors that mean that something is wrong, and those that mean that the file system does not do this.
WRONG = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES)
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)
LOAD_FAULTS = {
    "open": (errno.EACCES, errno.EMFILE, errno.EIO, errno.ENOENT),
    "open-direct": (errno.EINVAL, errno.EACCES),
    "pread": (errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
    "read": (errno.EIO, errno.ESTALE),
    "mmap": (errno.ENOMEM,),
    "mmap-anonymous": (errno.ENOMEM,),
    "fadvise": (errno.EINVAL,),
}
SAVE_FAULTS = {
    "open": (*WRONG, errno.EMFILE, errno.EROFS),
    "open-direct": (errno.EINVAL,),
    "pwrite": (*WRONG, errno.EFBIG),
    "fallocate": (*WRONG, *UNSUPPORTED),
    "ftruncate": (*WRONG, *UNSUPPORTED),
    "fchmod": (errno.EPERM,),
    "fsync": (*WRONG, errno.EINVAL),
    "close": (errno.EIO, errno.EDQUOT, errno.ENOSPC),
    "rename": (*WRONG, errno.EXDEV, errno.EPERM),
    "flock": (errno.ENOLCK, errno.EOPNOTSUPP),
}
# Of the process. Those that PyTorch allocates are its own business.
SHORTAGES = {
    "new": (errno.ENOMEM,),
    "new-in-thread": (errno.ENOMEM,),
    "pthread_create": (errno.EAGAIN,),
}
INTERRUPTED = {"open", "pread", "read", "pwrite", "fsync", "fallocate", "ftruncate", "flock"}
TRANSFERS = {"pread", "read", "pwrite"}


@dataclass(frozen=True)
class Scenario:
    operation: Load | Save
    place: str
    size: str
    fault: Fault
    seed: int

    def __str__(self) -> str:
        fault = self.fault
        how = f"from {fault.first}, {fault.times} times, {fault.probability}"
        return f"{self.operation.name} ({self.size}, {self.place}): {fault}, {how}"


def draw_fault(draw: random.Random, call: str, codes: tuple[int, ...]) -> Fault:
    effect = draw.choice((Effect.FAIL, Effect.FAIL, Effect.SHORT, Effect.SLOW))
    if call in SHORTAGES or (effect == Effect.SHORT and call not in TRANSFERS):
        effect = Effect.FAIL
    if effect == Effect.SHORT:
        value = draw.choice((HALF, HALF, 1, 4096, 0))
        return Fault(call, effect, value, times=1 if value == 0 else draw.choice((1, 3, 20)))
    if effect == Effect.SLOW:
        return Fault(call, effect, draw.choice((1, 5, 20)), times=10)
    if call in INTERRUPTED and draw.random() < 0.3:
        return Fault(call, effect, errno.EINTR, times=draw.choice((1, 2, 10)))
    how_often = draw.choice(((1, 1.0), (1, 1.0), (FOR_EVER, 1.0), (FOR_EVER, 0.3)))
    return Fault(call, effect, draw.choice(codes), times=how_often[0], probability=how_often[1])


def where(fault: Fault, site: Site) -> Path | str:
    """On what paths. A file that was only read closes well."""
    if fault.call in ("mmap-anonymous", "pthread_create"):
        return ""
    if fault.call in SHORTAGES:
        return veturboio.library_path
    return site.target if fault.call == "close" else site.root


def expected_end(fault: Fault, hits: list[Hit], operation: Load | Save) -> End:
    files = [hit for hit in hits if hit.path.endswith(".veturboio-tmp")]
    if not hits or fault.effect == Effect.SLOW or fault.call in ("open-direct", "fadvise", "fchmod", "flock"):
        return End.WELL
    if fault.effect == Effect.SHORT:
        return End.WELL if fault.value != 0 else End.EITHER
    if fault.value == errno.EINTR:
        # PyTorch's own open() is not made again.
        return End.EITHER if fault.call == "open" and operation.by_torch else End.WELL
    if fault.call == "pthread_create" and not operation.name.startswith("save_pt"):  # waits for this thread
        return End.WELL
    if fault.call == "close":  # a file may be open twice: on a local disk what cannot be written fsync() tells
        return End.EITHER if files else End.WELL
    if fault.call == "fsync":
        return End.FAILS if files and fault.value != errno.EINVAL else End.WELL
    if fault.value in UNSUPPORTED:
        # Where the size cannot be set either, the file is written in order.
        return End.WELL
    if fault.call == "rename" and fault.value in (errno.EXDEV, errno.EPERM):
        return End.EITHER if operation.name == "save_sharded" else End.WELL
    if fault.call in ("pwrite", "fallocate", "ftruncate", "rename"):
        return End.FAILS
    return End.EITHER


def check_exception(error: Exception, fault: Fault, hits: list[Hit], site: Site, *, by_torch: bool) -> None:
    text = str(error)
    if isinstance(error, CommandFailedError):
        if fault.call in SHORTAGES and text.endswith(": not enough memory\n"):
            return
        if str(site.root) not in text:
            raise ViolationError(f"the command names no file: {text}") from error
        reason = os.strerror(errno.EIO if fault.effect == Effect.SHORT else fault.value)
        if reason not in text and not any(
            word in text for word in ("not enough memory", "cut short", "damaged", "no directory", "Cannot allocate memory")
        ):
            raise ViolationError(f"the command does not tell why: {text}") from error
        return
    if fault.value == errno.ENOMEM and fault.effect == Effect.FAIL:
        if not isinstance(error, MemoryError):
            raise ViolationError("not a MemoryError") from error
        return
    if not isinstance(error, OSError | veturboio.FileFormatError):
        raise ViolationError("not an OSError") from error
    if not str(error.filename).startswith(str(site.root)):
        raise ViolationError(f"does not name the file, but {error.filename}") from error
    if fault.effect == Effect.SHORT:
        return  # the file seems to have become shorter
    if not isinstance(error, OSError) or error.errno != fault.value:
        raise ViolationError("another errno") from error
    if os.strerror(fault.value) not in text and "there is no directory" not in text:
        raise ViolationError("does not say what it means") from error
    if fault.call in ("pread", "pwrite") and not by_torch:  # of which some are Python's own
        offset = re.search(r"\(at byte (\d+)\)", text)
        if offset is None or int(offset[1]) not in {hit.offset for hit in hits}:
            raise ViolationError(f"does not tell where: {sorted({hit.offset for hit in hits})[:10]}") from error


class Campaign:
    """Scenarios over sites on a disk and in memory: what happens to files, or only want of memory and of threads."""

    def __init__(self, sites: dict[tuple[str, str], Site], *, only_shortages: bool = False) -> None:
        self._sites = sites
        self._only_shortages = only_shortages
        self._seen: dict[tuple[str, str, str, str], int] = {}
        self._contents: dict[tuple[str, str, str], tuple[dict[str, bytes], dict[str, bytes]]] = {}
        self.ends: collections.Counter[tuple[str, str, str]] = collections.Counter()

    def scenario(self, seed: int) -> Scenario:
        """Draws one in which something happens."""
        draw = random.Random(seed)
        while True:
            place, size = draw.choice(list(self._sites))
            operation = draw.choice(draw.choice((LOADS, SAVES)))
            table = LOAD_FAULTS if isinstance(operation, Load) or draw.random() < 0.1 else SAVE_FAULTS
            table = SHORTAGES if self._only_shortages else table
            call = draw.choice(list(table))
            count = self._count(operation, place, size, call)
            if count > 0:
                fault = replace(draw_fault(draw, call, table[call]), first=draw.randint(1, count))
                return Scenario(operation, place, size, fault, seed)

    def run(self, scenario: Scenario) -> None:
        """ViolationError where it does not end as it has to."""
        site, operation, fault = self._sites[scenario.place, scenario.size], scenario.operation, scenario.fault
        old, new = self._prepared(operation, scenario.place, scenario.size)
        site.put_back(old)
        gc.collect()  # what an exception referred to
        traces = Traces(site.root)
        hits: list[Hit] = []
        failure = ""
        try:
            with faults(fault, where(fault, site), scenario.seed) as hits:
                found = operation.run(site)
            if isinstance(operation, Load):
                assert found is not None
                operation.check(site, found)
            del found
        except ViolationError:
            raise
        except AssertionError as error:
            raise ViolationError("wrong bytes") from error
        except Exception as error:
            check_exception(error, fault, hits, site, by_torch=operation.by_torch)
            failure = type(error).__name__
        end = expected_end(fault, hits, operation)
        if end != End.EITHER and (end == End.FAILS) != bool(failure):
            raise ViolationError(f"{failure or 'it ended well'}, and has to end {end.value}")
        found = site.files()
        # Files that have their new names cannot have the old ones back while nothing can be renamed.
        may_be_mixed = operation.name == "save_sharded" and fault.call == "rename" and len(hits) > 1 and failure
        if may_be_mixed:
            found = {name: old[name] if content == new.get(name) else content for name, content in found.items()}
        if found != (old if failure else new):
            raise ViolationError(f"{failure or 'it ended well'}, and left {describe(site.files(), old, new)}")
        # Where mmap() fails PyTorch does not close what it has opened.
        traces.check(descriptors=not (operation.by_torch and fault.call == "mmap"))
        self.ends[operation.name, str(fault), failure or ("well" if hits else "not hit")] += 1

    def _prepared(self, operation: Load | Save, place: str, size: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """What a save finds and makes; for a load, nothing. Also: what threads and libraries come with a first run are there."""
        key = (operation.name, place, size)
        if key not in self._contents:
            site = self._sites[place, size]
            if isinstance(operation, Save):
                self._contents[key] = operation.prepare(site)
            else:
                operation.check(site, operation.run(site))
                self._contents[key] = ({}, {})
        return self._contents[key]

    def _count(self, operation: Load | Save, place: str, size: str, call: str) -> int:
        key = (operation.name, place, size, call)
        if key not in self._seen:
            site = self._sites[place, size]
            old, _ = self._prepared(operation, place, size)
            site.put_back(old)
            count_only = Fault(call, Effect.FAIL, times=0)
            with faults(count_only, where(count_only, site)):
                operation.run(site)
            self._seen[key] = calls_seen()
        return self._seen[key]


@contextlib.contextmanager
def made_sites(sizes: dict[str, int]) -> Iterator[dict[tuple[str, str], Site]]:
    folders = {
        "disk": Path(tempfile.mkdtemp(prefix="veturboio-faults-")),
        "memory": Path(tempfile.mkdtemp(prefix="veturboio-faults-", dir="/dev/shm")),
    }
    try:
        yield {(place, size): Site(folder / size, sizes[size]) for place, folder in folders.items() for size in sizes}
    finally:
        for folder in folders.values():
            shutil.rmtree(folder)


class AnyCampaign(Protocol):
    ends: collections.Counter[tuple[str, str, str]]

    def scenario(self, seed: int) -> Any: ...
    def run(self, scenario: Any) -> None: ...


def run_scenarios(campaign: AnyCampaign, option: str, seed: int, count: int) -> list[str]:
    """The violations. `option`: for so many of them."""
    violations = []
    for number in range(seed, seed + count):
        scenario = campaign.scenario(number)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            campaign.run(scenario)
        except ViolationError as violation:
            cause = violation.__cause__
            detail = f" [{type(cause).__name__}: {cause}]" if cause is not None else ""
            violations.append(f"--seed {number} {option} 1: {scenario}: {violation}{detail}")
            print(f"VIOLATION {violations[-1]}", flush=True)
        finally:
            faulthandler.cancel_dump_traceback_later()
    return violations


def print_table(ends: collections.Counter[tuple[str, str, str]]) -> None:
    """Operation and call, and how many scenarios ended how."""
    rows: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for (operation, fault, end), count in ends.items():
        rows[operation, fault][end] += count
    for (operation, fault), counts in sorted(rows.items()):
        print(f"  {operation:28} {fault:26} " + ", ".join(f"{end} {count}" for end, count in counts.most_common()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", type=int, default=600)
    parser.add_argument("--shortages", type=int, default=200, help="scenarios without memory or threads, besides")
    parser.add_argument("--kills", type=int, default=200, help="saves to kill, besides")
    parser.add_argument("--sfcs", type=int, default=300, help="scenarios of SFCS, besides")
    parser.add_argument("--servers", type=int, default=300, help="scenarios of the servers that keys come from, besides")
    parser.add_argument("--seed", type=int, default=1, help="that of the first scenario; the others' follow")
    options = parser.parse_args()
    if not is_preloaded():
        os.execve(sys.executable, [sys.executable, *sys.argv], preloading(os.environ))
    warnings.simplefilter("ignore")  # of guarantees that are lost
    ends: collections.Counter[tuple[str, str, str]] = collections.Counter()
    with made_sites(SIZES) as sites:
        violations = run_kills(sites, options.seed, options.kills)
        campaign = Campaign(sites)
        violations += run_scenarios(campaign, "--scenarios", options.seed, options.scenarios)
        of_shortages = Campaign(sites, only_shortages=True)
        violations += run_scenarios(of_shortages, "--shortages", options.seed, options.shortages)
        ends += campaign.ends + of_shortages.ends
    if options.sfcs > 0:
        with fault_sfcs.campaign() as in_sfcs:
            violations += run_scenarios(in_sfcs, "--sfcs", options.seed, options.sfcs)
        ends += in_sfcs.ends
    if options.servers > 0:
        with fault_servers.campaign() as at_servers:
            violations += run_scenarios(at_servers, "--servers", options.seed, options.servers)
        ends += at_servers.ends
    print_table(ends)
    counts = f"{options.scenarios} scenarios, {options.shortages} shortages, {options.kills} kills, "
    counts += f"{options.sfcs} in SFCS and {options.servers} at servers"
    print(f"{counts} from seed {options.seed} on, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
