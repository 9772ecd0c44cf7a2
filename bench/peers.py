"""veTurboIO beside its peers and beside what the machine can do at most: loads, saves, conversions, first loads.

python bench/peers.py                                    # all of it, about an hour on 2 cores
python bench/peers.py --cases load save --models llama   # some of it
python bench/peers.py --json peers.json --plot peers.png

The peers are installed first, each in an environment of its own under build/peers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cases
import report
from cases import CASES, DISK, SHM
from comparison import Comparison, Files, run
from measure import BenchError, exit_status, output
from peer_environment import PEERS, python, requirement, set_up

_HERE = Path(__file__).resolve().parent
_MODELS = ("llama", "1GiB", "4GiB", "small")


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    if message := _complaint(options):
        parser.error(message)
    return exit_status("peers", lambda: _bench(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compares veTurboIO with its peers. Each measurement is a process of its own, all of a table take turns, and "
        "the tables show medians. Every run checks that all gave the same bytes.",
    )
    add = parser.add_argument
    names = [case.name for case in CASES]
    modes = sorted({mode for case in CASES for mode in case.modes})
    add("--cases", nargs="+", choices=names, default=names, metavar="CASE", help=f"what to measure: {', '.join(names)} (all)")
    add("--models", nargs="+", metavar="MODEL", help="llama, small, or sizes as in 2GiB (what suits each case)")
    add("--places", nargs="+", choices=(SHM, DISK), help="where the files are (what suits each case)")
    add("--loaders", nargs="+", choices=modes, default=[], metavar="MODE", help=f"beside ours: {', '.join(modes)} (all)")
    add("--repeat", type=int, default=5, metavar="N", help="measurements of each (default: %(default)s)")
    add("--shm_dir", type=Path, default=Path("/dev/shm"), metavar="DIR", help="the place shm (default: %(default)s)")
    default = _HERE.parent / "build" / "peers_files"
    add("--disk_dir", type=Path, default=default, metavar="DIR", help="the place disk (default: build/peers_files)")
    add("--json", type=Path, metavar="FILE", help="write all measurements to this file as well")
    add("--plot", type=Path, metavar="FILE", help="draw a bar chart of them, as a PNG")
    return parser


def _complaint(options: argparse.Namespace) -> str | None:
    """Checks the options that argparse cannot."""
    try:
        for name in options.models or ():
            cases.model(name)
    except ValueError as error:
        return f"--models: {error}"
    return "--repeat must be at least 1" if options.repeat < 1 else None


def _bench(options: argparse.Namespace) -> int:
    unusable = _set_up_peers(options)
    for environment, reason in unusable.items():
        print(f"{environment} is left out: {reason}", file=sys.stderr)
    print(report.heading(options.repeat), flush=True)
    done: list[Comparison] = []
    problems = 0
    folders = {SHM: options.shm_dir / "veturboio_peers", DISK: options.disk_dir}
    for place, folder in folders.items():
        for model_name in dict.fromkeys([*(options.models or _MODELS), "tiny"]):
            chosen = [
                case
                for case in CASES
                if case.name in options.cases and cases.belongs(case, model_name, place, options.models, options.places)
            ]
            if not chosen:
                continue
            model = cases.model(model_name)
            files = Files(model, folder)
            try:
                for case in chosen:
                    try:
                        if place == DISK:
                            _check_is_disk(folder)
                        comparison = run(case, model, place, files, unusable, set(options.loaders), options.repeat)
                    except BenchError as error:
                        problems += 1
                        print(f"\n### {report.title(case, model, place)}\n\nNot measured: {error}", flush=True)
                        continue
                    done.append(comparison)
                    print("\n" + report.table(comparison), flush=True)
            finally:
                files.remove()
                if folder.exists() and not any(folder.iterdir()):
                    folder.rmdir()
    measured = report.as_json(done, unusable, options)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")
    if options.plot:
        problems += not _plot(measured, options.plot)
    return 1 if problems else 0


def _set_up_peers(options: argparse.Namespace) -> dict[str, str]:
    unusable = {}
    for environment in PEERS:
        if environment == "plot" and not options.plot:
            continue
        print(f"setting up {requirement(environment)}", file=sys.stderr)
        if (reason := set_up(environment)) is not None:
            unusable[environment] = reason
    return unusable


def _check_is_disk(folder: Path) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    kind = output(["stat", "--file-system", "--format=%T", str(there)], "stat failed").strip()
    if kind in ("tmpfs", "ramfs"):
        raise BenchError(f"{folder} is in memory ({kind}): choose another --disk_dir")


def _plot(measured: dict[str, object], file: Path) -> bool:
    data = _HERE.parent / "build" / "bench" / "peers.json"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps(measured))
    try:
        output([python("plot"), str(_HERE / "plot.py"), str(data), str(file)], "the chart was not drawn")
    except (BenchError, OSError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
