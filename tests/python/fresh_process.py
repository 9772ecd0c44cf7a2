"""Python in a process of its own: for what must not have happened before, and for what must not happen to this one."""

from __future__ import annotations

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


def run_python(code: str, *args: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs code with args as its sys.argv[1:]; its stderr is shown where it fails."""
    options.setdefault("env", environment())
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)], capture_output=True, text=True, timeout=120, **options
    )
    assert not check or done.returncode == 0, done.stderr
    return done
