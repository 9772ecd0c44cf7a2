"""Imports a package and loads one small file with it, as the first thing this process does; prints how long that took as JSON.
For comparison.py.

    python one_start.py '{"mode": "veturboio", ...}'    (the fields of loaders.Load)

"import torch" is the import of PyTorch, "import" that of what the mode needs beside it, and "returned" the load. Nothing is
warmed up.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    start = time.perf_counter()
    import torch

    imported_torch = time.perf_counter() - start
    from loaders import LOADERS, Load

    load = Load(**json.loads(sys.argv[1]))
    start = time.perf_counter()
    run = LOADERS[load.mode].start(load)
    imported = time.perf_counter() - start

    start = time.perf_counter()
    tensors = run()
    returned = time.perf_counter() - start

    from touching import make_touch

    checksum = make_touch(torch.device("cpu"))(tensors)
    print(json.dumps({"returned": returned, "import torch": imported_torch, "import": imported, "checksum": checksum}))


if __name__ == "__main__":
    main()
