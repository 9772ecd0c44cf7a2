"""Runs a program that knows only safetensors with veturboio in its place: ``python -m veturboio.run script.py ARGUMENTS``.

Also ``python -m veturboio.run -m MODULE ARGUMENTS``. With VETURBOIO_PATCH_SAFETENSORS=0 in the environment the program runs as it
would without this.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from veturboio._patch import patch_safetensors

_USAGE = "usage: python -m veturboio.run (SCRIPT | -m MODULE) [ARGUMENTS...]"


def main(arguments: list[str]) -> None:
    """Runs the program that these arguments say, with the rest as its own."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\n{_USAGE}", file=sys.stdout if arguments else sys.stderr)
        raise SystemExit(0 if arguments else 2)
    is_module = arguments[0] == "-m"
    program = arguments[1:] if is_module else arguments
    if not program:
        print(_USAGE, file=sys.stderr)
        raise SystemExit(2)
    if os.environ.get("VETURBOIO_PATCH_SAFETENSORS", "1") != "0":
        patch_safetensors()
    sys.argv = program
    if is_module:
        sys.path[0] = str(Path.cwd())
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(program[0]).resolve().parent)
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
