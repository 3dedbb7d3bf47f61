"""What all pages of measured tables share: records (`sim.reproduce.rows`) in Markdown, lengths in metres."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Record = dict[str, Any]

NOT_TRAINED = "not trained"
_ASTRAY_M = 1e4


def header(name: str) -> list[str]:
    """First lines of a page."""
    return [f"<!-- made by `python cli.py reproduce {name}`; do not edit -->", ""]


def metres(value: float) -> str:
    """A measured length [m]; those of samplers that run away are beyond a plain number's use."""
    return f"{value:.2f}" if value < _ASTRAY_M else f"{value:.1e}"


def with_interval(found: Record) -> str:
    """A mean with its 95 % interval."""
    low, high = found["ci95_of_mean"]
    return f"{metres(found['mean'])} ({metres(low)}–{metres(high)})"


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A table, with an empty line after it."""
    rule = "|" + "---|" * len(head)
    return [line(head), rule, *(line(cells) for cells in lines), ""]


def not_trained(records: Sequence[Record]) -> list[str]:
    """A sentence on rows without a result."""
    missing = [record["label"] for record in records if record["result"] is None]
    return [f"Not trained: {', '.join(missing)}.", ""] if missing else []


def provenance(records: Sequence[Record]) -> list[str]:
    """When, on which code and on what machine the rows were measured."""
    dates = sorted({one["date"] for one in records if one.get("date")})
    commits = sorted({one["commit"] for one in records if one.get("commit")})
    if not dates:
        return []
    code = f", on {', '.join(commits)}" if commits else ""
    cores = sorted({one["cores"] for one in records if one.get("cores")})
    machine = f", {' and '.join(map(str, cores))} CPU cores" if cores else ""
    return [f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))}{code}{machine}.", ""]
