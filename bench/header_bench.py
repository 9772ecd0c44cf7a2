"""How fast the headers of safetensors files are parsed: one of 20,000 small tensors, and that of TinyLlama-1.1B.

python bench/header_bench.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from measure import compiled_with_core, exit_status, output

_HERE = Path(__file__).resolve().parent


def main() -> int:
    return exit_status("header_bench", _bench)


def _bench() -> None:
    program = compiled_with_core(_HERE / "header_bench.cpp", "base", "format")
    print(output([str(program)], "header_bench failed"), end="")


if __name__ == "__main__":
    sys.exit(main())
