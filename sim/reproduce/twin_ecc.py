"""``twin-ecc``: what a learned report in a second round saves where the self-check of `twin` fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pyarrow import concat_tables
from pyarrow.parquet import read_table

from cloud.fusion.twin_ecc import COMBINED, LEARNED
from fronthaul.payload.twin_ecc import ANSWER_BITS
from sim.plan.settings import EmulateSettings
from sim.records.fix_table import true_positions
from sim.records.statistics import error_statistics
from sim.reproduce import markdown
from sim.reproduce.markdown import Record, with_interval
from sim.reproduce.rows import Result, Row
from sim.reproduce.twin_bits import twin_settings
from sim.reproduce.twin_mismatch import BITS, EXACT, KINDS, SEEDS, SNAPSHOTS, Cell, WorldBench

SCHEMES = ("twin", "twin-ecc")
EXACT_SNAPSHOTS = 500
WORLDS = ("antennas 5° and 0.5 dB off", "unmapped scattering at −20 dB", "clocks of base stations off by 3 ns",
          "materials up to 50 % off", "diffuse reflection, scattering coefficient 0.4")  # fmt: skip
HEAD = ["world", "scheme", "bits of a report (mean, both rounds)", "fixes", "learned or combined", "mean [m] (95 %)",
        "p90 [m]", "worst [m]", "learned fixes alone: mean [m]"]  # fmt: skip


def cells() -> list[Cell]:
    """Return the worlds, each with both schemes."""
    tables = {kind.words.format(level): found for kind in KINDS for level, found in kind.levels.items()}
    exact = [Cell(EXACT, scheme, settings(scheme, EXACT_SNAPSHOTS), {}) for scheme in SCHEMES]
    return exact + [
        Cell(words, scheme, settings(scheme, SNAPSHOTS), tables[words]) for words in WORLDS for scheme in SCHEMES
    ]


def settings(scheme: str, snapshots: int) -> EmulateSettings:
    """Return the settings of a run."""
    return replace(twin_settings(BITS, snapshots), scheme=scheme)


def runs(cell: Cell) -> dict[str, EmulateSettings]:
    """Return the runs of a cell: without any error, one seed will do."""
    found = cell.runs()
    return found if cell.tables else dict([*found.items()][:1])


class FallbackBench(WorldBench):
    """The runs."""

    def __init__(self) -> None:
        super().__init__({name: one for cell in cells() for name, one in runs(cell).items()})


def fallback_rows(bench: FallbackBench) -> list[Row]:
    """Make a row for each world and scheme."""
    return [Row(cell.label, pooled, tuple(runs(cell))) for cell in cells()]


def pooled(bench: FallbackBench, names: Sequence[str]) -> Result:
    """Run emulations; return what their fixes have together. Intervals resample positions."""
    results = [bench.run(name) for name in names]
    columns = ["error_3d_m", "note", *(f"true_{axis}_m" for axis in "xyz")]
    fixes = concat_tables([read_table(one.folder / "fixes.parquet", columns=columns) for one in results])
    error = fixes["error_3d_m"].to_numpy()
    notes = fixes["note"].to_pylist()
    learned = np.array([note == LEARNED for note in notes], bool)
    snapshots = sum(bench.settings[name].snapshots for name in names)
    sent = 8 * sum(one.summary["bytes"]["payload"] for one in results)
    return {
        "error_3d_m": error_statistics(error, 0, true_positions(fixes)),
        "worst_m": float(error.max(initial=0)),
        "fixes": len(error),
        "snapshots": snapshots,
        "learned": int(learned.sum()),
        "combined": notes.count(COMBINED),
        "learned_m": float(error[learned].mean()) if learned.any() else None,
        "bits_per_report": sent / snapshots / results[0].summary["bs"],
    }


def fallback_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        f"`twin` at {BITS} bit a report on `paris-6`, and `twin-ecc`, which asks each base station for a learned",
        f"report of {ANSWER_BITS} bit where a fix is undetermined (the fix is then learned) or uncertain (both are",
        f"combined). In process; the exact map at {EXACT_SNAPSHOTS} held-out positions, other worlds",
        f"([twin-mismatch](twin-mismatch.md)) at the first {SNAPSHOTS} in {len(SEEDS)} worlds each. `twin` knows of no",
        "error; the learned scheme was trained without any. Intervals resample positions.",
        "",
    ]
    lines = [cells_of(record) for record in records]
    return markdown.page(name, [*text, *markdown.table(HEAD, lines)], records)


def cells_of(record: Record) -> list[str]:
    """Return a record's cells under `HEAD`."""
    words, _, scheme = record["label"].rpartition(": ")
    found: Mapping[str, Any] | None = record["result"]
    if not found:
        return [words, f"`{scheme}`", *[""] * 7]
    error = found["error_3d_m"]
    return [
        words,
        f"`{scheme}`",
        f"{found['bits_per_report']:.0f}",
        f"{found['fixes']} of {found['snapshots']}",
        f"{found['learned']} / {found['combined']}" if scheme == SCHEMES[1] else "",
        with_interval(error, show="{:.3f}".format) if error else "",
        f"{error['p90']:.3f}" if error else "",
        f"{found['worst_m']:.2f}" if error else "",
        f"{found['learned_m']:.2f}" if found["learned_m"] else "",
    ]
