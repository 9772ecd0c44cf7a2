"""Takes a state dict of 1 GiB from torch.save to safetensors with veturboio.convert, and compares what loading it takes then.

    python examples/convert_and_compare.py

Each loader runs three times, in a process of its own each time, taking turns; the table shows medians. The first column of
seconds is what the call takes, the second ends when all cores have read every byte: a loader that only maps the file pays there.
The measuring is the bench's (bench/measure.py), which also checks that all loaders gave the same bytes. Removes its files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
from loaders import Load, data_file
from measure import BenchError, compare, exit_on_signals, format_row
from model_files import Model

_SHARED_MEMORY = Path("/dev/shm")
_REPEAT = 3
_LOADERS = {"torch": "torch.load", "safetensors": "safetensors", "veturboio": "veturboio"}


def main() -> int:
    exit_on_signals()
    model = Model("model", torch.float32, {f"layers.{layer}.weight": (2048, 2048) for layer in range(64)})
    place = _SHARED_MEMORY if _has_room(_SHARED_MEMORY, 4 * model.nbytes) else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix="veturboio_demo_", dir=place) as folder:
        stem = str(Path(folder) / model.name)
        torch_file, safetensors_file = data_file(stem, "torch"), data_file(stem, "veturboio")
        print(f"torch.save: {len(model.shapes)} tensors, {model.nbytes / 2**30:.0f} GiB, to {torch_file}", flush=True)
        torch.save(model.tensors(), torch_file)
        convert = [sys.executable, "-m", "veturboio.convert", "-i", str(torch_file), "-o", str(safetensors_file)]
        if subprocess.run(convert, check=False).returncode != 0:
            return 1  # it has said why
        try:
            results = compare([Load(mode, data_file(stem, mode), model.nbytes) for mode in _LOADERS], _REPEAT)
        except BenchError as error:
            print(f"convert_and_compare: {error}", file=sys.stderr)
            return 1
    headings = ["loader", "seconds to return", "seconds until every byte was read"]
    widths = [max(map(len, _LOADERS.values())), *map(len, headings[1:])]
    print("\n" + format_row(headings, widths))
    for mode, name in _LOADERS.items():
        print(format_row([name, f"{results[mode].returned:.3f}", f"{results[mode].touched:.3f}"], widths))
    print("safetensors returns a mapping of the file, the others memory that the tensors own.")
    return 0


def _has_room(folder: Path, size: int) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free >= size


if __name__ == "__main__":
    sys.exit(main())
