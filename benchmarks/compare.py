"""Ratios of a run against those of an earlier one, which may be of another machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table

from benchmarks.report import figure, output
from benchmarks.timing import Row
from sim.errors import UserError

TOLERANCE = 1.1
"""Factor by which ratios may differ whatever their spread."""


@dataclass(frozen=True, slots=True)
class Change:
    """A ratio now and before: `factor` above 1 is worse, a longer time or a lower rate against the same yardstick."""

    case: str
    before: float
    now: float
    factor: float
    verdict: Literal["", "better", "worse"]


def read(path: Path) -> dict[str, list[Row]]:
    """Return the rows of a file that `report.save` wrote, by part.

    Raises:
        UserError: it is not such a file.
    """
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        return {part: [Row(**row) for row in rows] for part, rows in parts.items()}
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a file that `bench --json` of this version wrote.") from error


def changes(now: Mapping[str, Sequence[Row]], before: Mapping[str, Sequence[Row]]) -> dict[str, list[Change]]:
    """Compare the ratios that both runs have.

    A ratio is better or worse if it differs by more than `TOLERANCE` and the values of the repetitions do not overlap;
    one that was measured once shows no spread, and is not judged.
    """
    found = {}
    for part, rows in now.items():
        known = {(row.case, row.reference): row for row in before.get(part, ())}
        found[part] = [
            change
            for row in rows
            if (then := known.get((row.case, row.reference))) is not None and (change := _change(row, then)) is not None
        ]
    return found


def _change(now: Row, then: Row) -> Change | None:
    if now.ratio is None or then.ratio is None or not now.ratio_range or not then.ratio_range:
        return None
    higher, rate = now.ratio / then.ratio, now.unit.endswith("/s")
    factor = 1 / higher if rate else higher
    apart = now.ratio_range[0] > then.ratio_range[1] or now.ratio_range[1] < then.ratio_range[0]
    verdict: Literal["", "better", "worse"] = ""
    repeated = all(one.least < one.largest for one in (now, then))
    if apart and repeated and not 1 / TOLERANCE <= factor <= TOLERANCE:
        verdict = "worse" if factor > 1 else "better"
    return Change(now.case, then.ratio, now.ratio, factor, verdict)


def show(now: Mapping[str, Sequence[Row]], before: Mapping[str, Sequence[Row]]) -> int:
    """Print all changes; return how many ratios are worse."""
    found = changes(now, before)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("part", "case"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ratio before", "now", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for part, rows in found.items():
        for number, one in enumerate(rows):
            cells = (figure(one.before), figure(one.now), f"× {one.factor:.2f}", one.verdict)
            table.add_row("" if number else part, one.case, *cells)
    every = [one for rows in found.values() for one in rows]
    worse = sum(one.verdict == "worse" for one in every)
    console = output()
    console.print(table)
    console.print(f"{worse} of {len(every)} ratios are worse than before, beyond the spread of both runs.")
    return worse
