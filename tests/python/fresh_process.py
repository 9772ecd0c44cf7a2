"""Python in a process of its own: for what must not have happened before, and for what must not happen to this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import veturboio

PACKAGE_PARENT = Path(veturboio.__file__).parents[1]


def environment(**changes: str) -> dict[str, str]:
    # The tests may run on a package that is not installed; warnings are errors there too.
    return {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), "PYTHONWARNINGS": "error", **changes}


class ForkedPython:
    """The same at a fraction of the time: the processes are forked from one that has imported PyTorch and this package, and done
    nothing with them."""

    _SERVER = """
    import io, json, os, sys, tempfile, traceback
    import torch, veturboio
    for line in sys.stdin:
        code, arguments, environment = json.loads(line)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if child == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os.environ.clear()
                os.environ.update(environment)
                sys.argv = ["-c", *arguments]
                exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
                sys.exit(0)
            _, status = os.waitpid(child, 0)
            out.seek(0)
            err.seek(0)
            print(json.dumps([os.waitstatus_to_exitcode(status), out.read(), err.read()]), flush=True)
    """

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", textwrap.dedent(self._SERVER)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment())

    def run(self, code: str, *args: object, env: dict[str, str]) -> str:
        """What the code prints; fails as run_python() does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([textwrap.dedent(code), list(map(str, args)), env]), file=self._process.stdin, flush=True)
        returncode, out, err = json.loads(self._process.stdout.readline())
        assert returncode == 0, f"exit code {returncode}\n{out}{err}"
        return str(out)

    def close(self) -> None:
        self._process.communicate()


def run_python(code: str, *args: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs code with args as its sys.argv[1:]; its stderr is shown where it fails."""
    options.setdefault("env", environment())
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)], capture_output=True, text=True, timeout=120, **options
    )
    assert not check or done.returncode == 0, done.stderr
    return done
