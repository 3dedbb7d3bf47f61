"""``twin-bits``: the error of `twin` by the length of a report, by base stations, loss and the user's clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow.parquet import read_table

from cloud.fusion.twin import UNCERTAIN, TwinFusion
from fronthaul.link.link_file import LinkPlan
from fronthaul.payload.twin import report_widths
from sim.drawing import COLOURS, error_bars, new_axes, save_figure
from sim.learn.twin.prediction import KnownUsers, Prediction
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.reproduce import markdown
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import Record, with_interval
from sim.reproduce.rows import Result, Row
from sim.world.store import DATA_FOLDER

LENGTHS = (12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)
ECC_BITS = (2, 5)
LOSSES = (0.1, 0.3, 0.5)
MIXED = "reports of different users"
BY_LENGTH, BY_ECC = "by the length of a report", "ECC on the same positions"
BY_STATIONS, BY_LOSS, BY_CLOCK = "128 bit, first base stations", "128 bit, loss of frames", "128 bit, the user's clock"
BY_MIXING = "128 bit, each base station's report of another user"
HEAD = ["", "payload of a fix [bit]", "fixes", "mean [m] (95 %)", "median [m]", "p90 [m]", "in the 90 % region",
        "above 1 m", "marked uncertain", "above 1 m, not marked", "rate-limited bound [m]"]  # fmt: skip
_APART = 7  # snapshots between the reports that are mixed
_BOUND_EVERY, _BOUND_FLOOR = 5, 1e-6  # positions of the bound, and the map's own error in it: the least that fits try
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
    found[MIXED] = twin_settings(128, 500)
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
    """The runs, and the bounds of reports."""

    def __init__(self) -> None:
        super().__init__(runs())

    def bound_m(self, label: str) -> float:
        """Return the mean rate-limited bound over some of the positions of a run."""
        plan = load_plan(self.settings[label])
        widths = report_widths(plan.weights.config, int(dict(self.settings[label].options)["bits_per_report"]))
        users = plan.paths.select(np.arange(0, len(plan.paths), _BOUND_EVERY))
        known = KnownUsers(plan.scenario, plan.weights, users)
        return float(Prediction(known, len(widths), _BOUND_FLOOR)(widths).mean())


def twin_rows(bench: TwinBench) -> list[Row]:
    """Make a row for each run."""
    measures = {MIXED: mixed}
    return [
        Row(label, measures.get(label, emulated), (label,), section=_section(label, bench.settings[label]))
        for label in bench.settings
    ]


def _section(label: str, settings: EmulateSettings) -> str:
    if label == MIXED:
        return BY_MIXING
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
    fixes = read_table(result.folder / "fixes.parquet", columns=["error_3d_m", "note"])
    error, unmarked = fixes["error_3d_m"].to_numpy(), fixes["note"].is_null().to_numpy()
    is_bounded = _section(names[0], bench.settings[names[0]]) == BY_LENGTH
    return {
        "error_3d_m": summary["error_3d_m"],
        "above_1_m": float(np.mean(error > 1)) if len(error) else None,
        "above_1_m_unmarked": int(np.sum((error > 1) & unmarked)),
        "uncertain": summary["fix_notes"].get(UNCERTAIN, 0),
        "bound_m": bench.bound_m(names[0]) if is_bounded else None,
        "coverage_90": summary["coverage_90"],
        "fixes": summary["fixes"],
        "undetermined": summary["undetermined"],
        "payload_bits_per_fix": summary["payload_bits_per_report"] * summary["bs"],
    }


def mixed(bench: TwinBench, names: Sequence[str]) -> Result:
    """Fuse the reports of different users; return how many fixes are announced as undetermined."""
    plan = load_plan(bench.settings[names[0]])
    numbers = np.arange(len(plan.truth))
    reports = []
    for site in plan.sites:
        station = site.station.assemble()
        own = np.roll(numbers, _APART * site.station.bs).tolist()
        received = [
            torch.stack([site.radio.observe(n) for n in own[begin : begin + 20]]) for begin in range(0, len(own), 20)
        ]
        reports.append(
            [one for number, batch in enumerate(received) for one in station.reports(own[20 * number :][:20], batch)]
        )
    found = TwinFusion(plan.cloud.setup).fuse([list(group) for group in zip(*reports, strict=True)])
    fixes = sum(math.isfinite(fix.position[0]) for fix in found)
    return {"error_3d_m": None, "fixes": fixes, "undetermined": len(found) - fixes}


def twin_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        "Scheme `twin` on `paris-6` with the shipped map, in process, at held-out positions. The map and the world",
        "that makes the channels are of the same tracer and scene. Payload of a fix: mean over fixes, of all base",
        "stations; one that hears nothing sends 0 bit. Of 1000 snapshots (500 in the last four parts), those without",
        "a fix are announced as such. Rate-limited bound: mean, over every fifth position, of the deviation that",
        "the Fisher information of the quantised reports leaves, with quantisers taken for Gaussian noise: an",
        "approximation, and none below about 20 bit.",
        "",
    ]
    lines = markdown.sectioned(records, lambda record: [cells(record)])
    return markdown.page(name, [*text, *markdown.table(HEAD, lines)], records)


def cells(record: Record) -> list[str]:
    """Return a record's cells under `HEAD`."""
    found = record["result"]
    if not found or not found["error_3d_m"]:
        counted = f"{found['fixes']} of {found['fixes'] + found['undetermined']}" if found else ""
        return [record["label"], "", counted, *[""] * 8]
    error, inside = found["error_3d_m"], found["coverage_90"]
    return [
        record["label"],
        f"{found['payload_bits_per_fix']:,.0f}".replace(",", " "),
        f"{found['fixes']} of {found['fixes'] + found['undetermined']}",
        with_interval(error, show=_fine),
        _fine(error["median"]),
        _fine(error["p90"]),
        "" if inside is None else f"{100 * inside:.0f} %",
        f"{100 * found['above_1_m']:.1f} %",
        *(_marks(found) if record["section"] != BY_ECC else ("", "")),
        _fine(found["bound_m"]) if found.get("bound_m") else "",
    ]


def _marks(found: Result) -> tuple[str, str]:
    return f"{100 * found['uncertain'] / found['fixes']:.1f} %", str(found["above_1_m_unmarked"])


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
    bounds = [one["result"] for one in records if one["section"] == BY_LENGTH and one["result"]]
    axes.plot(
        [one["payload_bits_per_fix"] / _ALL for one in bounds], [one["bound_m"] for one in bounds],
        ":", color=COLOURS[0], linewidth=1.2, label="rate-limited bound",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xlabel("mean payload of a report [bit]")
    axes.set_ylabel("mean 3D error [m]")
    save_figure(figure, path)
