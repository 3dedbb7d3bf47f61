"""Output of the results: a table on the console, and the same as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import Machine
from benchmarks.timing import Row
from sim.files import write_rows

WIDTH = 150
"""Width in characters if the output is not a terminal."""

BUSY_LOAD = 0.5
"""Load average above which other processes affect the results."""

Rows = Mapping[str, Sequence[Row]]


def show(rows: Rows, machine: Machine, weights: str, quick: bool) -> None:
    """Print the machine and the table."""
    console = output()
    introduce(console, machine, weights)
    if quick:
        console.print("Quick: shows that everything runs; these figures mean nothing.", style="bold")
    console.print(table(rows))


def introduce(console: Console, machine: Machine, weights: str) -> None:
    """Print the machine, how busy it was, and what was measured."""
    threads = "thread" if machine.torch_threads == 1 else "threads"
    console.print(f"{machine.cpu}, {machine.cores} cores, {machine.cpu_capability}, load before {machine.load:g}")
    console.print(
        f"torch {machine.torch} on {machine.torch_threads} {threads}, Python {machine.python}, "
        f"pyzmq {machine.pyzmq} (libzmq {machine.libzmq})"
    )
    console.print(f"commit {machine.commit or 'unknown'}, {machine.date}")
    console.print(f"weights: {weights}")
    if machine.load > BUSY_LOAD:
        console.print(
            "The machine was not idle: several processes get more of a busy machine than one does, "
            "which flatters Ray in `whole`.",
            style="bold",
        )


def output() -> Console:
    """Return a console on standard output, wide enough for the tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def save(
    path: Path, rows: Rows, machine: Machine, weights: str, quick: bool, took_s: Mapping[str, float] | None = None
) -> None:
    """Write everything that `show` prints, figures with four digits, and how long each part took [s]."""
    told: dict[str, Any] = {
        "machine": dataclasses.asdict(machine),
        "weights": weights,
        "quick": quick,
        "took_s": _rounded(dict(took_s or {})),
        "parts": {part: [_rounded(dataclasses.asdict(row)) for row in part_rows] for part, part_rows in rows.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, told)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(rows: Rows) -> Table:
    """Return the table of the parts."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("part", "case"):
        made.add_column(heading, no_wrap=True)
    for heading in ("median", "min", "max"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("unit", no_wrap=True)
    made.add_column("ratio", justify="right", no_wrap=True)
    made.add_column("to", no_wrap=True)
    for part, part_rows in rows.items():
        for number, row in enumerate(part_rows):
            made.add_row(
                "" if number else part,
                row.case,
                *(figure(value) for value in (row.median, row.least, row.largest)),
                row.unit,
                "" if row.ratio is None else figure(row.ratio),
                row.reference or "",
                end_section=number == len(part_rows) - 1,
            )
    return made


def figure(value: float) -> str:
    """Format with three significant digits, without exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
