"""Saves or converts one model in one way, as the only thing this process does, and prints how long that took as JSON. For
comparison.py.

    python one_save.py '{"action": "save" or "convert", "mode": ..., "source": ..., "target": ...}'

Both times begin with the call: it has returned, and all is on the disk. For the second, the new file and its folder are fsynced,
which costs little where the saver has done that itself. Not part of the time: imports, loading what is to be saved, touching
memory (see touch_fresh_memory) for the file's pages and for buffers, and reading the new file back for the checksum. Memory is
what the process takes beside what it had before; for a save the tensors were there before, for a conversion they were not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import veturboio
from loaders import LOADERS, Load
from measure import touch_fresh_file_memory, touch_fresh_memory
from memory_use import MemoryUse
from savers import CONVERTERS, SAVERS
from spare_memory import ask_for_spare_memory
from touching import make_touch


def main() -> None:
    step: dict[str, Any] = json.loads(sys.argv[1])
    mode, source, target = step["mode"], step["source"], step["target"]
    touch = make_touch(torch.device("cpu"))
    nbytes = Path(source).stat().st_size
    ask_for_spare_memory()
    if step["action"] == "save":
        save, reader = SAVERS[mode].start(), SAVERS[mode].reader
        tensors = veturboio.load(source)
        run: Callable[[], None] = lambda: save(tensors, target)  # noqa: E731
    else:
        convert, reader = CONVERTERS[mode].start(), "veturboio"
        run = lambda: convert(source, target)  # noqa: E731
    read_back = LOADERS[reader].start(Load(reader, target, nbytes))
    touch_fresh_memory(0)
    touch_fresh_file_memory(nbytes)
    memory = MemoryUse()

    start = time.perf_counter()
    run()
    returned = time.perf_counter() - start
    for path in (target, str(Path(target).parent)):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    durable = time.perf_counter() - start
    used = memory.since()
    checksum = touch(read_back())
    print(json.dumps({"returned": returned, "durable": durable, "checksum": checksum, "memory": used}))


if __name__ == "__main__":
    main()
