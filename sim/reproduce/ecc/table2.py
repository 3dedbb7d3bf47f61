"""Published tables: the paper's figure beside what the emulator measures, every row an emulation of its own.

A row is an in-process run over all test positions of its split (simulated clock, real payload bytes), with the
controls on the same snapshots. Rows whose results are at hand for the same weights and settings are not run again, so
a table that was stopped resumes; rows whose weights are missing say so.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import Table
from pyarrow.parquet import read_table

from sim.emulate.emulator import run_plan
from sim.errors import UserError, nearest_hint
from sim.files import write_rows, write_text
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.records.folder import commit
from sim.records.summary import error_statistics
from sim.reproduce.diffloc import bits
from sim.reproduce.diffloc import tables as diffloc
from sim.reproduce.vinloc import lost
from sim.reproduce.vinloc import tables as vinloc
from sim.world.scenario import load_scenario
from sim.world.store import DATA_FOLDER, load_test_paths

_DISTANCES_M = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 6.0, 8.0, 12.0)
TRAINED = DATA_FOLDER / "paris-6" / "weights"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    `paper`: mean and p90 3D error [m] of the paper, where it has the row; `weights` None takes the shipped ones.
    """

    label: str
    bits: int | None
    scheme: str = "ecc"
    weights: Path | None = None
    test: Path | None = None
    scenario: str = "paris-6"
    shuffle_csi: bool = False
    paper: tuple[float, float] | None = None
    training: str = ""


def ecc_rows() -> list[Row]:
    """Rows of ``ecc-table2``: the paper's Table II, then what it leaves out."""

    def trained(name: str) -> Path:
        return TRAINED / f"{name}.safetensors"

    short = "short schedule"
    return [
        Row("lossless CSI, no encoder", None, paper=(0.42, 0.75)),
        Row("B = 5", 5, paper=(0.48, 0.83)),
        Row("B = 4", 4, paper=(0.52, 0.90)),
        Row("B = 3", 3, paper=(0.54, 0.92)),
        Row("B = 2", 2, paper=(0.56, 0.97)),
        Row("B = 4, CSI shuffled among test positions (control)", 4, shuffle_csi=True),
        Row("rss, B = 8", 8, scheme="rss"),
        Row("phase by slot (headline variant), seed 0", 4, weights=trained("short-slot-b4"), training=short),
        Row("… seed 1", 4, weights=trained("short-slot-b4-seed1"), training=short),
        Row("… seed 2", 4, weights=trained("short-slot-b4-seed2"), training=short),
        Row("phase by slot and tone (the paper's)", 4, weights=trained("short-tone-b4"), training=short),
        Row("no phase stabilisation", 4, weights=trained("short-none-b4"), training=short),
        Row("lossless, phase by slot", None, weights=trained("short-slot-lossless"), training=short),
        Row("lossless, phase by slot and tone", None, weights=trained("short-tone-lossless"), training=short),
        Row(
            "50 ns clock bias, random slot phase",
            4,
            scenario="paris-6-bias",
            weights=trained("short-bias-b4"),
            training=short,
        ),
        Row(
            "block split (20 m blocks held out, 3 m guard)",
            4,
            weights=trained("short-block-b4"),
            test=DATA_FOLDER / "paris-6" / "test-block.npz",
            training=short,
        ),
        Row("without moved positions", 4, weights=trained("short-still-b4"), training=short),
    ]


TABLES: dict[str, Callable[[], Sequence[Row]]] = {"ecc-table2": ecc_rows}
NAMES = (*TABLES, *diffloc.TABLES, bits.NAME, *vinloc.TABLES, lost.NAME)


def reproduce(
    name: str, output: Path, on_row: Callable[[str, int, int], None] = lambda *_: None, *, train: bool = True
) -> Path:
    """Measure a table's rows and write ``<name>.json`` and ``<name>.md`` into `output`; returns the latter.

    Args:
        name: one of `NAMES`.
        output: folder.
        on_row: called with label, rows done, rows in all.
        train: run trainings of DiffLoc and VIn-Loc that are missing; ECC's are `sim.reproduce.ecc.campaign`'s.

    Raises:
        UserError: there is no such table, data are missing, or a row's run fails.
    """
    if name not in NAMES:
        raise UserError(f"There is no table {name!r}{nearest_hint(name, NAMES)}.")
    if name == bits.NAME:
        return bits.reproduce(output, train=train, on_row=on_row)
    if name in diffloc.TABLES:
        return diffloc.reproduce(name, output, train=train, commit=commit(), on_row=on_row)
    if name == lost.NAME:
        return lost.reproduce(output, train=train, commit=commit(), on_row=on_row)
    if name in vinloc.TABLES:
        return vinloc.reproduce(name, output, train=train, commit=commit(), on_row=on_row)
    rows = TABLES[name]()
    output.mkdir(parents=True, exist_ok=True)
    store = output / f"{name}.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.is_file() else {}
    for number, row in enumerate(rows):
        on_row(row.label, number, len(rows))
        settings = _settings(row)
        try:
            weights = load_weights(row.weights or find_weights("paris-6", row.scheme, row.bits))
            test = load_test_paths(load_scenario(row.scenario), row.test)
        except UserError:
            continue  # shown as not trained
        if row.scheme == "ecc" and weights.config["bits"] != row.bits:
            continue  # the nearest payload's weights are not this row's
        key = f"{weights.digest} {len(test)} {settings}"
        if results.get(row.label, {}).get("key") == key:
            continue
        results[row.label] = _measure(settings, key)
        write_rows(store, results)
    direct = TRAINED / "direct.npz"
    if direct.is_file():
        with direct.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            results["direct regression"] = {"error_3d_m": error_statistics(archive["errors_3d_m"], 1)}
        write_rows(store, results)
    on_row("done", len(rows), len(rows))
    table = output / f"{name}.md"
    write_text(table, _markdown(name, rows, results))
    return table


def _settings(row: Row) -> EmulateSettings:
    return EmulateSettings(
        scenario=row.scenario,
        scheme=row.scheme,
        bits=row.bits,
        snapshots=2000,
        driver="process",
        batch=20,
        interval_ms=10.0,
        weights=row.weights,
        test=row.test,
        shuffle_csi=row.shuffle_csi,
        output=DATA_FOLDER / "paris-6" / "runs",
    )


def _measure(settings: EmulateSettings, key: str) -> dict[str, Any]:
    result = run_plan(load_plan(settings))
    kept = ("error_3d_m", "error_2d_m", "error_vertical_m", "payload_bits_per_report", "payload_ratio", "controls")
    record = {name: result.summary.get(name) for name in (*kept, "snapshots", "weights_digest", "commit")}
    fixes = read_table(result.folder / "fixes.parquet", columns=["error_3d_m", "training_distance_m"])
    return {**record, "by_distance": _by_distance(fixes), "key": key}


def _by_distance(fixes: Table) -> list[list[float]]:
    """Distance to the nearest training position [m]: bin's upper end, number of fixes, their mean 3D error [m]."""
    distance, error = fixes["training_distance_m"].to_pylist(), fixes["error_3d_m"].to_numpy()
    if not distance or distance[0] is None:
        return []
    bins = []
    for low, high in itertools.pairwise(_DISTANCES_M):
        inside = (np.array(distance) >= low) & (np.array(distance) < high)
        if inside.any():
            bins.append([high, int(inside.sum()), float(error[inside].mean())])
    return bins


def _markdown(name: str, rows: Sequence[Row], results: dict[str, Any]) -> str:
    """Render the table; every figure from `results`."""
    lines = [
        f"<!-- made by `python cli.py reproduce {name}`; do not edit -->",
        "",
        "| | payload [bit] | of lossless | paper mean / p90 [m] | mean [m] (95 %) | median [m] | p90 [m] |",
        "|---|---|---|---|---|---|---|",
    ]
    section = ""
    for row in rows:
        if row.training != section:
            section = row.training
            lines.append(f"| *{section}* | | | | | | |")
        paper = f"{row.paper[0]:.2f} / {row.paper[1]:.2f}" if row.paper else ""
        found = results.get(row.label)
        if found is None:
            lines.append(f"| {row.label} | | | {paper} | not trained | | |")
            continue
        ratio = f"{100 * found['payload_ratio']:.2f} %"
        cells = [row.label, f"{found['payload_bits_per_report']:,}".replace(",", " "), ratio, paper]
        lines.append(f"| {' | '.join([*cells, *_statistics(found['error_3d_m'])])} |")
    lines.append("| *controls, unquantised CSI of all six sites at one place* | | | | | | |")
    controls = dict((results.get("B = 4") or {}).get("controls") or {})
    for label, statistics in (
        ("direct regression", (results.get("direct regression") or {}).get("error_3d_m")),
        ("weighted k nearest neighbours", controls.get("wknn")),
        ("prior: mean training position", controls.get("prior")),
        ("position error bound", controls.get("bound")),
    ):
        if statistics:
            lines.append(f"| {' | '.join([label, '', '', '', *_statistics(statistics)])} |")
    lines += ["", "Mean 3D error [m] by distance to the nearest training position (fixes):", ""]
    for label in ("B = 4", "block split (20 m blocks held out, 3 m guard)"):
        bins = (results.get(label) or {}).get("by_distance") or []
        if bins:
            cells = [f"below {high:g} m: {error:.2f} ({count})" for high, count, error in bins]
            lines.append(f"- {label}: {'; '.join(cells)}")
    return "\n".join(lines) + "\n"


def _statistics(found: dict[str, Any]) -> list[str]:
    low, high = found["ci95_of_mean"]
    return [f"{found['mean']:.3f} ({low:.3f}–{high:.3f})", f"{found['median']:.3f}", f"{found['p90']:.3f}"]
