"""Processes that are interrupted, or that end, while they load: each answers at once, and ends well."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

from fault_operations import ViolationError
from fresh_process import ForkedPython, environment

from fakes.faults import preloading
from fakes.slow_mount import NoMountError, SlowFs

TESTS = Path(__file__).parents[1]
ANSWER_SECONDS = 0.5
READ_SECONDS = 3  # of a read that hangs

# Loads or saves until it is interrupted, as often as it is told to, and tells when each interrupt became an exception.
_INTERRUPTED = f"""
import sys, time
from pathlib import Path
import torch, veturboio
from fakes.faults import Effect, Fault, faults
folder = Path(sys.argv[1])
tensors = {{"w": torch.zeros(256 << 20, dtype=torch.uint8)}}

def to_shmem():
    veturboio.load_to_shmem(model).unlink()

CALLS = {{
    "load": lambda: veturboio.load(model),
    "load, one thread": lambda: veturboio.load(model, num_thread=1),
    "load_async": lambda: veturboio.load_async(model).result(),
    "stream": lambda: [None for _ in veturboio.stream(model)],
    "load_to_shmem": to_shmem,
    "save_file": lambda: veturboio.save_file(tensors, folder / "saved"),
}}
for line in sys.stdin:
    kind, _, name = line.strip().partition(" ")
    # Headers of this machine's own disks are not given up: those are read at once.
    model = Path(sys.argv[2] if kind == "header" else folder) / "large"
    # The header is had by two reads.
    first = 1 if kind == "header" else 3
    fault = Fault("pread", Effect.SLOW, {READ_SECONDS * 1000}, first=first, times=0 if kind == "running" else -1)
    with faults(fault, str(model)):
        try:
            print("begun", flush=True)
            while True:
                CALLS[name]()
        except KeyboardInterrupt:
            answered = time.monotonic()
    print(answered, flush=True)
"""
RUNNING = ("load", "load, one thread", "load_async", "stream", "load_to_shmem", "save_file")
HANGING = ("load", "load, one thread", "load_async", "stream", "load_to_shmem")


def run_interrupts(folder: Path, seed: int, count: int) -> float:
    """The longest time in which one was answered."""
    with ExitStack() as mounts:
        kinds = ["running", "data", "header"]  # the latter two: what hangs; for load_to_shmem, its first read
        far = folder
        try:
            far = mounts.enter_context(SlowFs(folder, delay_ms=0, mb_per_s=0)).path
        except NoMountError as error:
            kinds.remove("header")
            print(f"no header hangs: {error}", flush=True)
        return _interrupt(folder, far, kinds, seed, count)


def _interrupt(folder: Path, far: Path, kinds: list[str], seed: int, count: int) -> float:
    with_fakes = environment()
    with_fakes["PYTHONPATH"] += f"{os.pathsep}{TESTS}"
    command = [sys.executable, "-c", _INTERRUPTED, folder, far]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=preloading(with_fakes))
    assert process.stdin is not None
    assert process.stdout is not None
    longest = 0.0
    with process:
        for number in range(seed, seed + count):
            draw = random.Random(number)
            kind = draw.choice(kinds)
            name = draw.choice(RUNNING if kind == "running" else HANGING)
            print(kind, name, file=process.stdin, flush=True)
            if process.stdout.readline() != "begun\n":
                raise ViolationError(f"--seed {number}: {name}, {kind}: the process has ended")
            time.sleep(draw.uniform(0.02, 0.5))
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            seconds = float(process.stdout.readline()) - sent  # both clocks count from the system's start
            longest = max(longest, seconds)
            if not 0 <= seconds <= ANSWER_SECONDS:
                raise ViolationError(f"--seed {number}: {name}, {kind}: answered after {seconds:.2f} s")
        process.stdin.close()
    if process.returncode != 0:
        raise ViolationError(f"the interrupted process ended with {process.returncode}")
    return longest


_BEGINNING = """
import os, sys, threading, time
from pathlib import Path
import torch, veturboio
folder = Path(sys.argv[1])
model = folder / "large"

def load_for_ever():
    while True:
        veturboio.load(model, num_thread=2)

tensors = {"w": torch.zeros(64 << 20, dtype=torch.uint8)}

def save_for_ever():
    while True:
        veturboio.save_file(tensors, folder / "saved")

def start(target, daemon):
    threading.Thread(target=target, daemon=daemon).start()
"""
EXITS = {
    "load_async is not waited for": "job = veturboio.load_async(model)",
    "load_async, cancelled": "job = veturboio.load_async(model); job.cancel()",
    "sys.exit while others load": "[start(lambda: veturboio.load(model), False) for _ in range(4)]; sys.exit(0)",
    "threads that nobody waits for load": "[start(load_for_ever, True) for _ in range(4)]; time.sleep(float(sys.argv[2]))",
    "threads that nobody waits for save": "[start(save_for_ever, True) for _ in range(2)]; time.sleep(float(sys.argv[2]))",
    "a stream is left in the middle": "stream = veturboio.stream(model, max_host_bytes=200 << 20); next(stream)",
    "a stream in a thread": "start(lambda: [None for _ in veturboio.stream(model)], True); time.sleep(float(sys.argv[2]))",
    "a forked child has its parent's job": """
        job = veturboio.load_async(model)
        child = os.fork()
        loaded = veturboio.load(folder / "small")["w"]
        assert loaded[-1].item() == len(loaded)
        if child != 0:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            job.result()
    """,
    "forked while a thread loads": """
        start(load_for_ever, True)
        time.sleep(float(sys.argv[2]))
        child = os.fork()
        loaded = veturboio.load(folder / "small")["w"]
        assert loaded[-1].item() == len(loaded)
        veturboio.save_file({"w": loaded}, folder / f"saved.{child == 0}")
        if child != 0:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """,
}


def run_exits(folder: Path, seed: int, count: int) -> None:
    """Each way in turn, in a process of its own that has done nothing else."""
    python = ForkedPython()
    try:
        for number in range(seed, seed + count):
            name, code = list(EXITS.items())[number % len(EXITS)]
            # No process that is left may hang for ever.
            code = "import signal; signal.alarm(60)\n" + _BEGINNING + textwrap.dedent(code)
            try:
                said = python.run(code, folder, random.Random(number).uniform(0, 0.1), env=environment())
            except AssertionError as error:
                raise ViolationError(f"--seed {number}: {name}: {error}") from error
            if said:
                raise ViolationError(f"--seed {number}: {name}: {said}")
    finally:
        python.close()
