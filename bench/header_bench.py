"""How fast the headers of safetensors files are parsed: one of 20,000 small tensors, and that of TinyLlama-1.1B.

python bench/header_bench.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from measure import BenchError, compiled, output

_HERE = Path(__file__).resolve().parent
_CORE = _HERE.parent / "csrc" / "core"


def main() -> int:
    names = ["safetensors", "header_json", "json_cursor", "repeated_name", "dtype"]
    sources = [_CORE / "base" / "error.cpp", *(_CORE / "format" / f"{name}.cpp" for name in names)]
    headers = [*(_CORE / "base").glob("*.h"), *(_CORE / "format").glob("*.h")]
    try:
        flags = ["-O3", f"-I{_CORE}", *map(str, sources)]
        program = compiled(_HERE / "header_bench.cpp", *flags, depends=[*sources, *headers])
        print(output([str(program)], "header_bench failed"), end="")
    except BenchError as error:
        print(f"header_bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
