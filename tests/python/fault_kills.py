"""Saves over an existing file that are killed: the old file or the new one is there, and the next save removes what is left."""

from __future__ import annotations

import collections
import os
import random
import signal
import struct
import time

from fault_operations import SAVES, Save, Site, ViolationError, describe

from fakes.faults import Effect, Fault, faults


def run_kills(sites: dict[tuple[str, str], Site], seed: int, count: int) -> list[str]:
    """Kills saves over an existing file, half of them at a random moment, and half instead of a call. The violations."""
    violations = []
    ends: collections.Counter[str] = collections.Counter()
    for number in range(seed, seed + count):
        draw = random.Random(number)
        place, size = draw.choice(list(sites))
        operation = draw.choice([save for save in SAVES if save.name.startswith(("save_file", "save_pt"))])
        try:
            while (end := kill_save(sites[place, size], operation, draw)) is None:
                pass
            ends[end] += 1
        except ViolationError as violation:
            violations.append(f"--seed {number} --kills 1 --scenarios 0: {operation.name} ({size}, {place}): {violation}")
            print(f"VIOLATION {violations[-1]}", flush=True)
    for end, times in ends.most_common():
        print(f"  killed: {end} {times}")
    return violations


def kill_save(site: Site, operation: Save, draw: random.Random) -> str | None:
    """What came of it, in words; None where it ended before it was killed."""
    old, new = operation.prepare(site)
    site.put_back(old)
    call, first = draw.choice(("open", "pwrite", "pwrite", "flock", "fsync", "close", "rename")), draw.randint(1, 3)
    at_call, moment = draw.random() < 0.5, draw.random()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if at_call:
                os.write(writer, struct.pack("d", 0.0))
                with faults(Fault(call, Effect.KILL, first=first), site.target):
                    operation.run(site)
            else:
                began = time.monotonic()
                operation.run(site)
                seconds = time.monotonic() - began
                site.put_back(old)
                os.write(writer, struct.pack("d", moment * seconds))
                operation.run(site)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    [seconds] = struct.unpack("d", os.read(reader, 8))
    if not at_call:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise ViolationError("the save failed")
    found = site.files()
    left = {name for name in found if name not in old}
    if found["model"] not in (old["model"], new["model"]):
        raise ViolationError(f"left {describe(found, old, new)}")
    operation.run(site)
    if site.files() != new:
        raise ViolationError(f"the next save left {describe(site.files(), old, new)}, after {sorted(left)}")
    if os.WIFEXITED(status):
        return None
    whole = "old" if found["model"] == old["model"] else "new"
    return f"the {whole} file is there, {len(left)} beside it, gone with the next save"
