"""Loading from a file system that is far away: what veturboio chooses by itself, beside settings that are fixed.

python bench/slow_fs_bench.py                                  # 10 ms a request, 100 MB/s a stream
python bench/slow_fs_bench.py --delay_ms 1 --mb_per_s 400 --gib 1

The file system is the tests' own (tests/fakes/slow_fs). Before each measurement the page cache forgets the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from loaders import Load
from measure import compiled, exit_status, format_row, output
from model_files import single

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent / "tests"))

from fakes.slow_mount import NoMountError, SlowFs  # noqa: E402

_AUTO = "veturboio"
_ONE = "veturboio, num_thread=1"
_SEQUENTIAL = "one read() after the other"
_DIRECT = ", use_direct_io"
_THREADS = (4, 8, 16, 32, 64)
_CHUNK_MIB = (1, 4, 16)

Measure = Callable[[], float]


def main() -> int:
    options = _parser().parse_args()
    return exit_status("slow_fs_bench", lambda: _bench(options), NoMountError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measures loads from a slow file system. Each measurement is a process of its own, and they take turns."
    )
    add = parser.add_argument
    add("--delay_ms", type=float, default=10, metavar="MS", help="before an answer comes (default: %(default)s)")
    add("--mb_per_s", type=float, default=100, metavar="MB", help="what an open file gives (default: %(default)s)")
    add("--gib", type=float, default=0.25, metavar="GIB", help="size of the model (default: %(default)s)")
    add("--repeat", type=int, default=3, metavar="N", help="measurements of each (default: %(default)s)")
    return parser


def _bench(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="veturboio-bench-", dir="/dev/shm") as folder:
        _bench_in(Path(folder), options)


def _bench_in(folder: Path, options: argparse.Namespace) -> None:
    model = single(options.gib)
    file = f"{model.name}.safetensors"
    model.write(str(folder))
    with SlowFs(folder, delay_ms=options.delay_ms, mb_per_s=options.mb_per_s) as far:
        measures = _measures(str(far / file), model.nbytes)
        seconds: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(options.repeat):
            for name, measure in measures.items():
                far.forget_cached(file)
                seconds[name].append(measure())
    medians = {name: statistics.median(of_name) for name, of_name in seconds.items()}
    _print_table(seconds, medians, model.nbytes)
    print(f"\n{options.delay_ms:g} ms a request, {options.mb_per_s:g} MB/s a stream; medians of {options.repeat} processes each.")
    print(f"{_ONE} / {_AUTO}: {medians[_ONE] / medians[_AUTO]:.1f}")
    print(f"{_SEQUENTIAL} / {_AUTO}: {medians[_SEQUENTIAL] / medians[_AUTO]:.1f}")
    # Apart, since what is read past the page cache is not there for the next process.
    for kind, names in (
        ("through the page cache", [name for name in medians if not name.endswith(_DIRECT) and name != _AUTO]),
        ("past it", [name for name in medians if name.endswith(_DIRECT)]),
    ):
        best = min(names, key=lambda name: medians[name])
        print(f"{_AUTO} / the best that is fixed, {kind} ({best}): {medians[_AUTO] / medians[best]:.2f}")


def _measures(file: str, nbytes: int) -> dict[str, Measure]:
    def load(num_thread: int | None = None, use_direct_io: bool | None = None) -> Measure:
        return lambda: _load(Load("veturboio", file, nbytes, num_thread=num_thread, use_direct_io=use_direct_io))

    measures: dict[str, Measure] = {_AUTO: load(), _SEQUENTIAL: lambda: _read(file), _ONE: load(1)}
    for threads in _THREADS:
        measures[f"veturboio, num_thread={threads}"] = load(threads)
    for threads in (8, 32):
        measures[f"veturboio, num_thread={threads}{_DIRECT}"] = load(threads, True)
    for threads in _THREADS[1:]:
        for mib in _CHUNK_MIB:
            measures[f"{threads} threads pread {mib} MiB"] = _fixed_readers(file, threads, mib << 20)
    return measures


def _load(load: Load) -> float:
    command = [sys.executable, str(_HERE / "one_load.py"), json.dumps(asdict(load))]
    return float(json.loads(output(command, f"loading {load.file} failed"))["returned"])


def _fixed_readers(file: str, threads: int, chunk_bytes: int) -> Measure:
    program = compiled(_HERE / "fixed_readers.cpp", "-O2")
    command = [str(program), file, str(threads), str(chunk_bytes)]
    return lambda: float(json.loads(output(command, f"reading {file} failed"))["seconds"])


def _read(file: str) -> float:
    buffer = bytearray(4 << 20)
    begin = time.perf_counter()
    with Path(file).open("rb", buffering=0) as source:
        while source.readinto(buffer):
            pass
    return time.perf_counter() - begin


def _print_table(seconds: dict[str, list[float]], medians: dict[str, float], nbytes: int) -> None:
    headings = ["reader", "median(s)", "best(s)", "MB/s", f"/ {_AUTO}"]
    widths = [max(map(len, seconds)), 9, 7, 5, 11]
    print(format_row(headings, widths))
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        ratio = median / medians[_AUTO]
        print(
            format_row(
                [name, f"{median:.3f}", f"{min(seconds[name]):.3f}", f"{nbytes / median / 1e6:.0f}", f"{ratio:.2f}"], widths
            )
        )


if __name__ == "__main__":
    sys.exit(main())
