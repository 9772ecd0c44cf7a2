"""How long loading a model takes: veTurboIO beside other loaders and beside what the machine can do at most.

python bench/io_bench.py --begin 1 --end 4 --load_mode veturboio torch safetensors limit --touch
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from loaders import LIMIT, LOAD_MODES, OWN_MODES, Load, data_file
from measure import Result, compare, exit_status, format_row
from model_files import Model, llama, single
from veturboio._files import is_local


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    try:
        modes = _load_modes(options)
    except ValueError as error:
        parser.error(str(error))
    return exit_status("io_bench", lambda: _generate(options) if options.gen_data else _bench(options, modes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measures how long loading a model takes. Each measurement is a process of its own, the loaders take turns, "
        "and the table shows medians. Every run checks that all loaders gave the same bytes, by a checksum over all of them.",
        epilog="Data files that are missing are written first and removed afterwards; those that are "
        "there, or not on this machine, stay.",
    )
    add = parser.add_argument
    add("--begin", type=float, default=1, metavar="GIB", help="smallest size of the model in GiB (default: %(default)s)")
    add("--end", type=float, default=4, metavar="GIB", help="largest size; it doubles from --begin (default: %(default)s)")
    add(
        "--layout",
        choices=("single", "llama"),
        default="single",
        help="single: one float32 tensor of each size; llama: 201 bfloat16 tensors with the shapes of TinyLlama-1.1B, 2.2 GB, "
        "whatever --begin and --end say (default: %(default)s)",
    )
    add(
        "--base_dir",
        default="/dev/shm",
        metavar="DIR",
        help="where the data files are: a folder, or sfcs://FOLDER (default: %(default)s)",
    )
    add("--fs_name", default="shm", metavar="NAME", help="what the table calls the file system there (default: %(default)s)")
    add("--gen_data", action="store_true", help="only write the data files, to be used by later runs; measure nothing")
    add(
        "--load_mode",
        nargs="+",
        metavar="MODE",
        help=f"what to measure, any of {', '.join(LOAD_MODES)}, separated by blanks or commas. limit is no loader but bench/"
        "limit.cpp: threads that read the file into fresh huge pages, on the CPU; one_reader is veturboio with one thread "
        "(default: veturboio torch; where the files are not on this machine, which only these two read: veturboio one_reader)",
    )
    add("--map_location", default="cpu", metavar="DEVICE", help="where the tensors go: cpu, cuda:0, ... (default: %(default)s)")
    add(
        "--use_pinmem",
        action="store_true",
        help="veturboio: pinned memory is kept from an earlier load, which is not timed (accelerators only)",
    )
    add("--use_direct_io", action="store_true", help="veturboio: read past the page cache; without this it decides by itself")
    add("--num_thread", type=int, metavar="N", help="veturboio, limit: threads that read (default: as many as pay; one a core)")
    add(
        "--touch",
        action="store_true",
        help="also show the seconds until all cores together have read every byte of the tensors: a loader that only maps the "
        "file returns at once and pays then",
    )
    add("--repeat", type=int, default=3, metavar="N", help="measurements of each loader (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all measurements to this file as well")
    return parser


def _load_modes(options: argparse.Namespace) -> list[str]:
    """Checks the options that argparse cannot."""
    local = is_local(options.base_dir)
    words = options.load_mode or (["veturboio", "torch"] if local else OWN_MODES)
    modes = [mode for word in words for mode in word.split(",") if mode]
    unknown = [mode for mode in modes if mode not in LOAD_MODES]
    if unknown or not modes:
        raise ValueError(f"--load_mode: {', '.join(unknown) or 'nothing'} is none of {', '.join(LOAD_MODES)}")
    if not local and not set(modes) <= set(OWN_MODES):
        raise ValueError(f"--load_mode: what is in {options.base_dir} is read by {' and '.join(OWN_MODES)} only")
    if LIMIT in modes and options.map_location != "cpu":
        raise ValueError("--load_mode limit measures the CPU only: leave it out, or --map_location")
    if not 0 < options.begin <= options.end:
        raise ValueError("--begin must be above 0 and not above --end")
    if options.repeat < 1 or (options.num_thread is not None and options.num_thread < 1):
        raise ValueError("--repeat and --num_thread must be at least 1")
    return list(dict.fromkeys(modes))


def _models(options: argparse.Namespace) -> Iterator[Model]:
    if options.layout == "llama":
        yield llama()
        return
    size = options.begin
    while size <= options.end:
        yield single(size)
        size *= 2


def _generate(options: argparse.Namespace) -> None:
    for model in _models(options):
        model.write(options.base_dir)
        print(*model.files(options.base_dir), sep="\n")


def _bench(options: argparse.Namespace, modes: list[str]) -> None:
    headings = ["fs_name", "tensor_size", *(f"{mode} load_time(s)" for mode in modes)]
    if options.touch:
        headings += [f"{mode} touched(s)" for mode in modes]
    widths = [max(len(heading), 10) for heading in headings]
    print(format_row(headings, widths), flush=True)
    rows: list[tuple[int, dict[str, Result]]] = []
    for model in _models(options):
        with model.written(options.base_dir):
            results = compare([_load(options, mode, model) for mode in modes], options.repeat)
        cells = [options.fs_name, str(model.nbytes), *(f"{results[mode].returned:.3f}" for mode in modes)]
        if options.touch:
            cells += [f"{results[mode].touched:.3f}" for mode in modes]
        print(format_row(cells, widths), flush=True)
        rows.append((model.nbytes, results))
    print(f"\nMedians of {options.repeat} processes each. All loaders gave the same bytes.")
    _print_ratios(modes, [results for _, results in rows], options.touch)
    if options.json:
        options.json.write_text(json.dumps(_report(options, rows), indent=2) + "\n")


def _load(options: argparse.Namespace, mode: str, model: Model) -> Load:
    return Load(
        mode=mode,
        file=data_file(f"{options.base_dir}/{model.name}", mode),
        nbytes=model.nbytes,
        map_location=options.map_location,
        num_thread=options.num_thread,
        use_pinmem=options.use_pinmem,
        use_direct_io=options.use_direct_io or None,
    )


def _print_ratios(modes: list[str], rows: list[dict[str, Result]], touch: bool) -> None:
    baseline = "veturboio" if "veturboio" in modes else modes[0]
    for mode in modes:
        if mode == baseline:
            continue
        ratios = " ".join(f"{row[mode].returned / row[baseline].returned:.2f}" for row in rows)
        line = f"{mode} / {baseline}: load_time {ratios}"
        if touch:
            line += ", touched " + " ".join(f"{row[mode].touched / row[baseline].touched:.2f}" for row in rows)
        print(line)


def _report(options: argparse.Namespace, rows: list[tuple[int, dict[str, Result]]]) -> dict[str, Any]:
    """What --json writes: medians and all measurements, in seconds."""
    return {
        "torch": torch.__version__,
        "machine": platform.platform(),
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "runs": [
            {
                "fs_name": options.fs_name,
                "tensor_size": tensor_size,
                "results": {
                    mode: {
                        "load_time": result.returned,
                        "touched": result.touched,
                        "load_times": [timing.seconds["returned"] for timing in result.timings],
                        "touched_times": [timing.seconds["touched"] for timing in result.timings],
                    }
                    for mode, result in results.items()
                },
            }
            for tensor_size, results in rows
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
