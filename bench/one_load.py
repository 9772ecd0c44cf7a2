"""Loads one file in one way, as the only thing this process does, and prints how long that took as JSON. For measure.py.

    python one_load.py '{"mode": "veturboio", "file": "model.safetensors", ...}'    (the fields of loaders.Load)

Not part of the time: starting Python, imports, setting up the device and its kernels, and touching memory
(see touch_fresh_memory). Its memory is what the load, and reading all of the tensors, add to what the process has by then.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from loaders import LOADERS, Load
from measure import touch_fresh_memory
from memory_use import MemoryUse
from touching import make_touch


def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    device = torch.device(load.map_location)
    touch = make_touch(device)
    run = LOADERS[load.mode].start(load)
    _synchronize(device)
    touch_fresh_memory(load.nbytes)
    memory = MemoryUse()

    start = time.perf_counter()
    tensors = run()
    _synchronize(device)
    returned = time.perf_counter() - start
    checksum = touch(tensors)
    touched = time.perf_counter() - start
    print(json.dumps({"returned": returned, "touched": touched, "checksum": checksum, "memory": memory.since()}))


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    main()
