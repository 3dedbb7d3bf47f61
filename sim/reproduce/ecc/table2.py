"""``ecc-table2``: the paper's Table II beside the emulator's results, every row an emulation of its own.

A row is an in-process run over all test positions of its split (simulated clock, real payload bytes), with the
controls on the same snapshots. The networks are trained by `sim.reproduce.ecc.campaign`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.plan.settings import EmulateSettings
from sim.records.statistics import error_statistics
from sim.reproduce import markdown
from sim.reproduce.bench import file_digest
from sim.reproduce.ecc.runs import HEAD, PAPER, TRAINED, cells, emulated, settings_of, statistics
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import Record
from sim.reproduce.rows import Result, Row

DIRECT = TRAINED / "direct.npz"
"""File with the errors of the direct regression."""
CONTROLS = "controls, unquantised CSI of all six sites at one place"
B4, REGRESSION = "B = 4", "direct regression"


def runs() -> dict[str, EmulateSettings]:
    """Return settings by label: the paper's rows on the shipped weights, then controls and further seeds."""
    return {
        "lossless CSI, no encoder": settings_of(None),
        "B = 5": settings_of(5),
        B4: settings_of(4),
        "B = 3": settings_of(3),
        "B = 2": settings_of(2),
        "B = 4, CSI shuffled among test positions (control)": settings_of(4, shuffle_csi=True),
        "rss, B = 8": settings_of(8, scheme="rss"),
        "B = 4, seed 1": settings_of(4, "ecc-b4-seed1"),
        "B = 4, seed 2": settings_of(4, "ecc-b4-seed2"),
    }


class EccBench(Emulations):
    """The runs, and the campaign's errors of the direct regression."""

    def __init__(self, settings: Mapping[str, EmulateSettings] | None = None) -> None:
        """Take the settings of the runs; all `runs` by default."""
        super().__init__(runs() if settings is None else settings)

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Return the digest of a run, or of the direct regression's errors."""
        if name != REGRESSION:
            return super().identity(name, fitted=fitted)
        return file_digest(DIRECT).hex()[:16] if DIRECT.is_file() else None


def table2_rows(bench: Emulations) -> list[Row]:
    """Make a row for each run, and one for the direct regression."""
    rows = []
    for label in bench.settings:
        payload = "lossless" if label.startswith("lossless") else label
        known = dict(zip(("mean", "p90"), PAPER.get(payload, ()), strict=False))
        controls = {"controls": True} if label == B4 else {}
        rows.append(Row(label, emulated, (label,), controls, paper=known))
    return [*rows, Row(REGRESSION, regressed, (REGRESSION,), section=CONTROLS)]


def regressed(_: Emulations, __: Sequence[str]) -> Result:
    """Return error statistics of the direct regression."""
    with DIRECT.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {"error_3d_m": error_statistics(archive["errors_3d_m"], seed=1)}


def table2_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    emulations = [one for one in records if one["section"] != CONTROLS]
    results: dict[str, Any] = {one["label"]: one["result"] or {} for one in records}
    controls = results[B4].get("controls") or {}
    lines = markdown.sectioned(emulations, lambda record: [cells(record)])
    lines.append([f"*{CONTROLS}*"])
    for label, found in (
        (REGRESSION, results[REGRESSION].get("error_3d_m")),
        ("weighted k nearest neighbours", controls.get("wknn")),
        ("local linear regression on fingerprints", controls.get("linear")),
        ("prior: mean training position", controls.get("prior")),
        ("position error bound", controls.get("bound")),
    ):
        if found:
            lines.append([label, "", "", "", *statistics(found)])
    told = "Mean 3D error [m] by distance to the nearest training position (fixes):"
    apart = markdown.errors_by_distance([one for one in records if one["label"] == B4], told)
    return markdown.page(name, [*markdown.table(HEAD, lines), *apart], records)
