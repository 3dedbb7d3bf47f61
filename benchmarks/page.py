"""Tables and picture of docs/benchmarks.md, from the run that is stored beside this file: `python -m benchmarks.page`.

    python cli.py bench --json benchmarks/baseline.json
    python -m benchmarks.page

A line ``<!-- bench PART … -->`` stands before the block that holds the rows of these parts, ``<!-- bench -->`` before
the one that says on which machine it ran.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from rich.console import Console

from benchmarks import compare, grid, growth, report
from benchmarks.machine import Machine
from benchmarks.timing import Row
from sim.files import write_picture, write_text

BASELINE = Path(__file__).with_name("baseline.json")
PAGE = BASELINE.parents[1] / "docs" / "benchmarks.md"
PICTURE = PAGE.with_name("growth.png")
WIDTH = 180
"""Width of a table [characters]; pages scroll, so nothing is cut."""
_BLOCK = re.compile(r"^<!-- bench(?P<parts>[ \w]*?) -->\n\n```\n.*?^```\n", re.MULTILINE | re.DOTALL)


def filled(text: str, stored: Path = BASELINE) -> str:
    """Return the page `text` with its tables written anew from a file of `bench --json`.

    Raises:
        KeyError: the file lacks a part that the page names.
    """
    rows = compare.read(stored)
    told = json.loads(stored.read_text(encoding="utf-8"))

    def block(found: re.Match[str]) -> str:
        drawn = io.StringIO()
        console = Console(file=drawn, highlight=False, width=WIDTH)
        if parts := found["parts"].split():
            console.print(report.table({part: rows[part] for part in parts}))
        else:
            report.introduce(console, Machine(**told["machine"]), told["weights"])
        lines = "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
        return f"<!-- bench{found['parts']} -->\n\n```\n{lines}\n```\n"

    return _BLOCK.sub(block, text)


def growth_figure(rows: Mapping[str, Sequence[Row]]) -> Figure:
    """Draw what the part `growth` has measured against the number of base stations."""
    found = {row.case: row.median for row in rows["growth"]}
    figure = Figure((11, 2.9), layout="constrained")
    for panel, (name, unit) in zip(figure.subplots(1, len(growth.FIGURES)), growth.FIGURES.items(), strict=True):
        for scheme, marker in zip(grid.SCHEMES, "os", strict=True):
            values = [found[f"{scheme}, {size} BSs: {name}"] for size in growth.SIZES]
            label = f"{scheme}, exponent {found[f'{scheme}: {name}, exponent']:.2f}"
            panel.loglog(growth.SIZES, values, marker=marker, markersize=4, label=label)
        panel.set(xlabel="base stations", ylabel=f"{name} [{unit}]")
        panel.set_xticks(growth.SIZES, map(str, growth.SIZES))
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    write_picture(growth_figure(compare.read(BASELINE)), PICTURE)
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))
