"""Shared terminal output: progress bar, tables and number formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


class ProgressBar:
    """A progress bar with the estimated time left, on a standard error that is a terminal, from `update` on."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Take whether nothing is shown and said at all."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        self._console = Console(stderr=True)
        self._quiet, seen = quiet, self._console.is_terminal or self._console.is_jupyter
        self._progress = Progress(*columns, console=self._console, speed_estimate_period=600, disable=quiet or not seen)
        self._description = ""

    def __enter__(self) -> ProgressBar:
        """Return the bar itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the bar and leave it on the screen."""
        if self._progress.tasks:
            self._progress.stop()

    def update(self, description: str, done: float, total: float, *, note: str = "", restart: bool = False) -> None:
        """Show `done` of `total`.

        A new description, or `restart`, resets the estimate of the time left, for phases whose steps take a
        different time, such as starting processes or finding results on disk.
        """
        if not self._progress.tasks:
            self._progress.add_task(description, total=total, note=note)
            self._progress.start()
        task = self._progress.tasks[0].id
        if restart or description != self._description:
            self._progress.reset(task, total=total)
        self._description = description
        self._progress.update(task, description=description, completed=done, total=total, note=note)

    def say(self, line: str) -> None:
        """Print a line above the bar, also where no bar is shown."""
        if not self._quiet:
            self._console.print(line, highlight=False)


def new_table(first: str, *others: str) -> Table:
    """Return an empty table: text on the left, numbers on the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(escape(first), no_wrap=True)
    for heading in others:
        table.add_column(escape(heading), justify="right" if heading else "left", no_wrap=True)
    return table


def show_table(console: Console, table: Table) -> None:
    """Print a table whole: one that is too wide is continued below, with its first column repeated."""
    columns, width = table.columns, console.width
    begin = 1
    while begin < max(2, len(columns)):
        end = len(columns)
        while end > begin + 1 and _width(console, _part(table, [0, *range(begin, end)])) > width:
            end -= 1
        part = _part(table, [0, *range(begin, end)])
        if _width(console, part) > width:  # not even one column fits beside the first
            for column in part.columns:
                column.no_wrap, column.overflow = False, "fold"
        console.print(part)
        begin = max(end, begin + 1)


def _part(table: Table, chosen: Sequence[int]) -> Table:
    """Return a table of some columns of another one."""
    part = Table(box=table.box, pad_edge=table.pad_edge)
    part.columns = [replace(table.columns[k], _index=n) for n, k in enumerate(chosen) if k < len(table.columns)]
    part.rows = table.rows
    return part


def _width(console: Console, table: Table) -> int:
    """Return the width of a table without any folding."""
    unlimited = console.options.update(width=10_000)
    return console.measure(table, options=unlimited).maximum


def number(value: float | None) -> str:
    """Format a number with spaces between thousands.

    Whole numbers are shown in full, others to four significant digits, or to one decimal from 1000 on. None is a dash.
    """
    if value is None:
        return "–"
    if float(value).is_integer():
        return f"{int(value):,}".replace(",", " ")
    return f"{value:,.1f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.4g}"


def count(value: int | None) -> str:
    """Format a count; None is an empty text."""
    return "" if value is None else number(value)


def metres(value: float | None) -> str:
    """Format a length [m] to the millimetre; None is a dash."""
    return "–" if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Format a time in seconds, minutes or hours, to two digits."""
    for unit, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{1 if seconds < 10 * length else 0}f} {unit}"
    return f"{seconds:.{1 if seconds < 10 else 0}f} s"


def megabytes(size: float) -> str:
    """Format a number of bytes in kB, MB or GB."""
    unit, step = next((u, s) for u, s in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if size >= s or u == "kB")
    return f"{size / step:.{1 if size < 10 * step else 0}f} {unit}"


def milliseconds(value: float | None) -> str:
    """Format a time [ms] to the microsecond; None is a dash."""
    return "–" if value is None else f"{value:.3f}"
