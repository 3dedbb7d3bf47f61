"""``twin-bits``: the error of `twin` by the length of a report, by base stations, loss and the user's clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow.parquet import read_table

from fronthaul.link.link_file import LinkPlan
from sim.drawing import COLOURS, error_bars, new_axes, save_figure
from sim.plan.settings import EmulateSettings
from sim.reproduce import markdown
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import Record, with_interval
from sim.reproduce.rows import Result, Row
from sim.world.store import DATA_FOLDER

LENGTHS = (12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384)
ECC_BITS = (2, 5)
LOSSES = (0.1, 0.3, 0.5)
BY_LENGTH, BY_ECC = "by the length of a report", "ECC on the same positions"
BY_STATIONS, BY_LOSS, BY_CLOCK = "128 bit, first base stations", "128 bit, loss of frames", "128 bit, the user's clock"
HEAD = ["", "payload of a fix [bit]", "fixes", "mean [m] (95 %)", "median [m]", "p90 [m]", "above 1 m",
        "in the 90 % region"]  # fmt: skip
_ALL = 6


def runs() -> dict[str, EmulateSettings]:
    """Return settings by label."""
    found = {f"{bits} bit": twin_settings(bits) for bits in LENGTHS}
    for bits in ECC_BITS:
        found[f"ECC, B = {bits}"] = EmulateSettings(bits=bits, **_common(1000))
    for stations in range(1, _ALL):
        found[f"{stations} of {_ALL}"] = twin_settings(128, 500, bs=stations)
    for loss in LOSSES:
        found[f"{loss:.0%}"] = twin_settings(128, 500, links=LinkPlan({(None, None): {"loss": loss}}))
    for name, clock in (("50 ns and phases per slot, allowed for", (("clock_ns", 50),)), ("the same, unknown", ())):
        found[name] = twin_settings(128, 500, clock, scenario="paris-6-bias")
    return found


def twin_settings(
    bits: int, snapshots: int = 1000, options: tuple[tuple[str, int], ...] = (), **changes: Any
) -> EmulateSettings:
    """Return the settings of a run with the shipped map, with these options of the scheme."""
    chosen = (("bits_per_report", bits), *options)
    return EmulateSettings(scheme="twin", options=chosen, **{**_common(snapshots), **changes})


def _common(snapshots: int) -> dict[str, Any]:
    return {
        "snapshots": snapshots,
        "driver": "process",
        "batch": 20,
        "interval_ms": 10.0,
        "controls": False,
        "capture": False,
        "output": DATA_FOLDER / "paris-6" / "runs",
    }


class TwinBench(Emulations):
    """The runs."""

    def __init__(self) -> None:
        super().__init__(runs())


def twin_rows(bench: TwinBench) -> list[Row]:
    """Make a row for each run."""
    return [Row(label, emulated, (label,), section=_section(label, bench.settings[label])) for label in bench.settings]


def _section(label: str, settings: EmulateSettings) -> str:
    if settings.scheme == "ecc":
        return BY_ECC
    if settings.scenario != "paris-6":
        return BY_CLOCK
    if settings.bs < _ALL:
        return BY_STATIONS
    return BY_LOSS if label.endswith("%") else BY_LENGTH


def emulated(bench: TwinBench, names: Sequence[str]) -> Result:
    """Run an emulation; keep its errors and what it says of itself."""
    result = bench.run(names[0])
    summary = result.summary
    error = read_table(result.folder / "fixes.parquet", columns=["error_3d_m"])["error_3d_m"].to_numpy()
    return {
        "error_3d_m": summary["error_3d_m"],
        "above_1_m": float(np.mean(error > 1)) if len(error) else None,
        "coverage_90": summary["coverage_90"],
        "fixes": summary["fixes"],
        "undetermined": summary["undetermined"],
        "payload_bits_per_fix": summary["payload_bits_per_report"] * summary["bs"],
    }


def twin_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        "Scheme `twin` on `paris-6` with the shipped map, in process, at held-out positions. The map and the world",
        "that makes the channels are of the same tracer and scene. Payload of a fix: mean over fixes, of all base",
        "stations; one that hears nothing sends 0 bit. Of 1000 snapshots (500 in the last three parts), those without",
        "a fix are announced as such.",
        "",
    ]
    lines = markdown.sectioned(records, lambda record: [cells(record)])
    return markdown.page(name, [*text, *markdown.table(HEAD, lines)], records)


def cells(record: Record) -> list[str]:
    """Return a record's cells under `HEAD`."""
    found = record["result"]
    if not found or not found["error_3d_m"]:
        return [record["label"], "", "0" if found else "", *[""] * 5]
    error, inside = found["error_3d_m"], found["coverage_90"]
    return [
        record["label"],
        f"{found['payload_bits_per_fix']:,.0f}".replace(",", " "),
        f"{found['fixes']} of {found['fixes'] + found['undetermined']}",
        with_interval(error, show=_fine),
        _fine(error["median"]),
        _fine(error["p90"]),
        f"{100 * found['above_1_m']:.1f} %",
        "" if inside is None else f"{100 * inside:.0f} %",
    ]


def _fine(value: float) -> str:
    return f"{value:.3f}"


def twin_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the mean error against the payload of a report."""
    figure, [axes] = new_axes()
    for number, (section, label) in enumerate(((BY_LENGTH, "twin, exact map"), (BY_ECC, "ECC, shipped weights"))):
        points = [
            (one["result"]["payload_bits_per_fix"] / _ALL, one["result"]["error_3d_m"])
            for one in records
            if one["section"] == section and one["result"]
        ]
        error_bars(axes, points, label, COLOURS[number])
    axes.set_xscale("log", base=2)
    axes.set_xlabel("mean payload of a report [bit]")
    axes.set_ylabel("mean 3D error [m]")
    save_figure(figure, path)
