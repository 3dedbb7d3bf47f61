"""``ecc-table2``: the paper's Table II beside the emulator's results, every row an emulation of its own.

A row is an in-process run over all test positions of its split (simulated clock, real payload bytes), with the
controls on the same snapshots. The networks are trained by `sim.reproduce.ecc.campaign`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow.parquet import read_table

from sim.plan.settings import EmulateSettings
from sim.records.statistics import error_statistics, errors_by_distance
from sim.reproduce import markdown
from sim.reproduce.bench import file_digest
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import NOT_TRAINED, Record, with_interval
from sim.reproduce.rows import Result, Row
from sim.world.store import DATA_FOLDER

TRAINED = DATA_FOLDER / "paris-6" / "weights"
DIRECT = TRAINED / "direct.npz"
"""File with the errors of the direct regression."""
SHORT, CONTROLS = "short schedule", "controls, unquantised CSI of all six sites at one place"
B4, BLOCK, REGRESSION = "B = 4", "block split (20 m blocks held out, 3 m guard)", "direct regression"
PAPER = {"lossless CSI, no encoder": (0.42, 0.75), "B = 5": (0.48, 0.83), B4: (0.52, 0.90), "B = 3": (0.54, 0.92),
         "B = 2": (0.56, 0.97)}  # fmt: skip
"""The paper's mean and 90th percentile of the 3D error [m]."""
_DISTANCES_M = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 6.0, 8.0, 12.0)


def runs() -> dict[str, EmulateSettings]:
    """Return settings by label: the paper's rows on the shipped weights, then additional studies."""
    return {
        "lossless CSI, no encoder": _run(None),
        "B = 5": _run(5),
        B4: _run(4),
        "B = 3": _run(3),
        "B = 2": _run(2),
        "B = 4, CSI shuffled among test positions (control)": _run(4, shuffle_csi=True),
        "rss, B = 8": _run(8, scheme="rss"),
        "B = 4, seed 1": _run(4, "ecc-b4-seed1"),
        "B = 4, seed 2": _run(4, "ecc-b4-seed2"),
        "phase by slot (headline variant), seed 0": _run(4, "short-slot-b4"),
        "… seed 1": _run(4, "short-slot-b4-seed1"),
        "… seed 2": _run(4, "short-slot-b4-seed2"),
        "phase by slot and tone (the paper's)": _run(4, "short-tone-b4"),
        "lossless, phase by slot": _run(None, "short-slot-lossless"),
        "lossless, phase by slot and tone": _run(None, "short-tone-lossless"),
        "50 ns clock bias, random slot phase": _run(4, "short-bias-b4", scenario="paris-6-bias"),
        BLOCK: _run(4, "short-block-b4", test=DATA_FOLDER / "paris-6" / "test-block.npz"),
    }


def _run(
    bits: int | None,
    trained: str = "",
    *,
    scheme: str = "ecc",
    scenario: str = "paris-6",
    test: Path | None = None,
    shuffle_csi: bool = False,
) -> EmulateSettings:
    """Return the settings of a row; `trained` names weights of the campaign, by default the shipped ones are used."""
    return EmulateSettings(
        scenario=scenario,
        scheme=scheme,
        bits=bits,
        snapshots=2000,
        driver="process",
        batch=20,
        interval_ms=10.0,
        weights=TRAINED / f"{trained}.safetensors" if trained else None,
        test=test,
        shuffle_csi=shuffle_csi,
        output=DATA_FOLDER / "paris-6" / "runs",
    )


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
    for label, settings in bench.settings.items():
        known = dict(zip(("mean", "p90"), PAPER.get(label, ()), strict=False))
        short = settings.weights is not None and settings.weights.name.startswith("short")
        controls = {"controls": True} if label == B4 else {}
        rows.append(Row(label, emulated, (label,), controls, section=SHORT if short else "", paper=known))
    return [*rows, Row(REGRESSION, regressed, (REGRESSION,), section=CONTROLS)]


def emulated(bench: Emulations, names: Sequence[str], *, controls: bool = False) -> Result:
    """Run the emulation; keep its errors, payload and, if wanted, controls."""
    result = bench.run(names[0])
    kept = ["error_3d_m", "error_2d_m", "error_vertical_m", "payload_bits_per_report", "payload_ratio", "snapshots",
            "weights_digest", *["controls"] * controls]  # fmt: skip
    fixes = read_table(result.folder / "fixes.parquet", columns=["error_3d_m", "training_distance_m"])
    distance, error = (fixes[name].to_numpy() for name in ("training_distance_m", "error_3d_m"))
    bins = errors_by_distance(distance, error, _DISTANCES_M)
    return {name: result.summary.get(name) for name in kept} | {"by_distance": bins}


def regressed(_: Emulations, __: Sequence[str]) -> Result:
    """Return error statistics of the direct regression."""
    with DIRECT.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {"error_3d_m": error_statistics(archive["errors_3d_m"], seed=1)}


def table2_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    emulations = [one for one in records if one["section"] != CONTROLS]
    results: dict[str, Any] = {one["label"]: one["result"] or {} for one in records}
    controls = results[B4].get("controls") or {}
    lines = markdown.sectioned(emulations, lambda record: [_cells(record)])
    lines.append([f"*{CONTROLS}*"])
    for label, found in (
        (REGRESSION, results[REGRESSION].get("error_3d_m")),
        ("weighted k nearest neighbours", controls.get("wknn")),
        ("local linear regression on fingerprints", controls.get("linear")),
        ("prior: mean training position", controls.get("prior")),
        ("position error bound", controls.get("bound")),
    ):
        if found:
            lines.append([label, "", "", "", *_statistics(found)])
    head = ["", "payload [bit]", "of lossless", "paper mean / p90 [m]", "mean [m] (95 %)", "median [m]", "p90 [m]"]
    told = "Mean 3D error [m] by distance to the nearest training position (fixes):"
    apart = markdown.errors_by_distance([one for one in records if one["label"] in (B4, BLOCK)], told)
    return markdown.page(name, [*markdown.table(head, lines), *apart], records)


def _cells(record: Record) -> list[str]:
    known, found = record["paper"], record["result"]
    paper = f"{known['mean']:.2f} / {known['p90']:.2f}" if known else ""
    if found is None:
        return [record["label"], "", "", paper, NOT_TRAINED]
    payload = f"{found['payload_bits_per_report']:,}".replace(",", " ")
    return [record["label"], payload, f"{100 * found['payload_ratio']:.2f} %", paper, *_statistics(found["error_3d_m"])]


def _statistics(found: dict[str, Any]) -> list[str]:
    return [with_interval(found, show=_millimetres), _millimetres(found["median"]), _millimetres(found["p90"])]


def _millimetres(value: float) -> str:
    """Format a length [m] to a millimetre."""
    return f"{value:.3f}"
