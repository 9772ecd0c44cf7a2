"""Draws what peers.py has measured as bar charts in one PNG. Runs in the environment "plot" (peer_environment.py).

    python plot.py MEASURED.json CHART.png

Bars are medians, with a line from the least time to the most. What counts is when a model is ready: a load until every byte was
read, a save until all is on the disk. Drawn are the main cases of the first model that was measured; all, if there are none.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito's colours, told apart by the colour-blind and in grey.
_OURS, _PEER, _LIMIT = "#D55E00", "#56B4E9", "#BBBBBB"
_MAIN_CASES = ("load", "load-mmap", "load-cold", "save")
_COLUMNS = 2
_BAR = 0.32  # inches


def main() -> None:
    measured = json.loads(Path(sys.argv[1]).read_text())
    comparisons = measured["comparisons"]
    if not comparisons:
        raise SystemExit("nothing was measured that could be drawn")
    first = comparisons[0]["model"]
    main_ones = [comparison for comparison in comparisons if comparison["model"] == first and comparison["case"] in _MAIN_CASES]
    comparisons = main_ones or comparisons
    columns = min(_COLUMNS, len(comparisons))
    pairs = [comparisons[i : i + columns] for i in range(0, len(comparisons), columns)]
    heights = [max(len(comparison["results"]) for comparison in pair) * _BAR + 1.1 for pair in pairs]
    figure, axes = plt.subplots(
        len(pairs),
        columns,
        figsize=(8.5 * columns, sum(heights) + 0.7),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.1)
    for place, axis in enumerate(axes.flat):
        if place < len(comparisons):
            pair = pairs[place // columns]
            _draw(axis, comparisons[place], max(len(comparison["results"]) for comparison in pair))
        else:
            axis.axis("off")
    handles = [
        mpl.patches.Patch(facecolor=_OURS, label="veTurboIO"),
        mpl.patches.Patch(facecolor=_PEER, label="peers"),
        mpl.patches.Patch(facecolor=_LIMIT, hatch="//", edgecolor="white", label="limit of the machine"),
    ]
    figure.suptitle(
        f"{measured['processor']}, {measured['cores']} cores, PyTorch {measured['torch']}: medians; shorter is better",
        fontsize=12,
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(sys.argv[2], dpi=110)


def _draw(axis: Any, comparison: dict[str, Any], rows: int) -> None:
    """Leaves room for `rows` bars, so that those of the chart beside it are as thick."""
    end = comparison["ends"][-1]
    results = dict(sorted(comparison["results"].items(), key=lambda item: item[1]["median"][end], reverse=True))
    ours = comparison["results"][comparison["ours"]]["median"][end]
    values = [result["median"][end] for result in results.values()]
    scale, unit = (1e3, "ms") if max(values) < 1 else (1, "s")
    for row, (name, result) in enumerate(results.items()):
        value, least, most = (result[key][end] * scale for key in ("median", "least", "most"))
        color = _LIMIT if name.startswith("limit") else _OURS if name.startswith("veturboio") else _PEER
        axis.barh(row, value, color=color, edgecolor="white", hatch="//" if color == _LIMIT else None, height=0.75)
        axis.plot([least, most], [row, row], color="black", linewidth=1)
        digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 2
        text = f" {value:.{min(digits, 2)}f} {unit} ({value / scale / ours:.2f}x)"
        axis.text(max(value, most), row, text, va="center", fontsize=8)
    axis.set_ylim(len(results) - rows - 0.6, len(results) - 0.4)
    axis.set_yticks(range(len(results)), list(results), fontsize=8)
    axis.set_xlim(0, max(result["most"][end] for result in results.values()) * scale * 1.22)
    axis.tick_params(axis="x", labelsize=8)
    until = {"returned": "until returned", "touched": "until every byte was read", "durable": "until on the disk"}[end]
    axis.set_xlabel(f"{unit} {until}", fontsize=8)
    axis.set_title(comparison["title"], fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
