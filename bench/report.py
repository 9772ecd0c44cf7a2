"""What peers.py prints and writes of its comparisons."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any

import torch

from cases import DISK, Case
from comparison import Comparison
from loaders import LOADERS
from measure import Result
from model_files import Model
from peer_environment import PEERS

_HEADINGS = {
    "returned": "to return, ms",
    "touched": "until touched, ms",
    "durable": "until durable, ms",
    "import torch": "import torch, ms",
    "import": "import of the rest, ms",
}


_LEGEND = """\
"Until touched": all cores have read every byte of the tensors. "Peak memory" is in sizes of the model, beside what the process
had before; in brackets what of it is no page of a file at the end. "Of the limit": the limit's time divided by this one's. "Of
veturboio": this one's time divided by ours. Both are of the last time in the row."""


def heading(repeat: int) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    machine = f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, Linux {platform.release()}"
    software = f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    return f"{machine}, {software}. Medians of {repeat} processes each, which take turns.\n\n{_LEGEND}"


def title(case: Case, model: Model, place: str) -> str:
    count = "" if len(model.shapes) == 1 else f" in {len(model.shapes)} tensors"
    size = f"{model.nbytes / 1e9:.2f} GB" if model.nbytes >= 1e8 else f"{model.nbytes / 1024:.0f} KiB"
    return f"{case.name}: {case.title}; {size}{count}, {'on disk' if place == DISK else 'in shared memory'}"


def table(comparison: Comparison) -> str:
    """In Markdown, the fastest first."""
    case = comparison.case
    last = case.ends[-1]
    is_load = case.action in ("load", "start")
    headings = ["", *(["result"] if is_load else []), *(_HEADINGS[end] for end in case.ends)]
    headings += ["peak memory"] if case.action != "start" else []
    headings += ["of the limit"] if comparison.limit else []
    headings += [f"of {case.ours}"]
    rows = []
    for name in sorted(comparison.results, key=lambda name: comparison.results[name].median(last)):
        result = comparison.results[name]
        cells = [f"**{name}**" if name == case.ours else name]
        if is_load:
            cells.append(LOADERS[name].result if name in LOADERS else "-")
        cells += [_milliseconds(result, end) for end in case.ends]
        if case.action != "start":
            cells.append(_memory(result, comparison.model.nbytes))
        if comparison.limit:
            cells.append(f"{comparison.results[comparison.limit].median(last) / result.median(last):.2f}")
        cells.append(f"{result.median(last) / comparison.results[case.ours].median(last):.2f}")
        rows.append(cells)
    for name, reason in comparison.skipped.items():
        rows.append([name, f"not measured: {_in_a_cell(reason)}", *[""] * (len(headings) - 2)])
    lines = [f"### {title(case, comparison.model, comparison.place)}", ""]
    lines += [_row(headings), _row(["---"] * len(headings)), *map(_row, rows)]
    return "\n".join(lines)


def as_json(comparisons: list[Comparison], unusable: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Medians, spreads and all measurements, in seconds and bytes."""
    return {
        "torch": torch.__version__,
        "machine": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "peers": {environment: unusable.get(environment, package) for environment, (package, _) in PEERS.items()},
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "comparisons": [_as_json(comparison) for comparison in comparisons],
    }


def _as_json(comparison: Comparison) -> dict[str, Any]:
    case = comparison.case
    return {
        "case": case.name,
        "title": title(case, comparison.model, comparison.place),
        "model": comparison.model.name,
        "bytes": comparison.model.nbytes,
        "tensors": len(comparison.model.shapes),
        "place": comparison.place,
        "ends": case.ends,
        "ours": case.ours,
        "limit": comparison.limit,
        "skipped": comparison.skipped,
        "results": {name: _of_result(result) for name, result in comparison.results.items()},
    }


def _of_result(result: Result) -> dict[str, Any]:
    seconds = {end: [timing.seconds[end] for timing in result.timings] for end in result.timings[0].seconds}
    return {
        "median": {end: result.median(end) for end in seconds},
        "least": {end: min(values) for end, values in seconds.items()},
        "most": {end: max(values) for end, values in seconds.items()},
        "seconds": seconds,
        "memory": [timing.memory for timing in result.timings],
    }


def _milliseconds(result: Result, end: str) -> str:
    if end not in result.timings[0].seconds:
        return "-"
    value = result.median(end) * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _memory(result: Result, nbytes: int) -> str:
    of_all = [timing.memory for timing in result.timings if timing.memory]
    if not of_all:
        return "-"
    peak = max(memory["peak"] for memory in of_all)
    own = max(memory["anonymous"] for memory in of_all)
    return f"{peak / nbytes:.2f} ({own / nbytes:.2f})"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _in_a_cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
