"""``ecc-tracking``: a user on a spiral, located snapshot by snapshot by ECC and MFCNet (the paper's Fig. 14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pyarrow.parquet import read_table

from sim.drawing import COLOURS, GRID, INK
from sim.files import write_picture
from sim.records.statistics import error_statistics
from sim.reproduce import markdown
from sim.reproduce.ecc.runs import ComparisonBench, comparison, millimetres, statistics
from sim.reproduce.markdown import Record
from sim.reproduce.rows import Result, Row
from sim.world.scenario import load_scenario
from sim.world.store import DATA_FOLDER
from sim.world.tracer import Tracer

Array = npt.NDArray[np.float64]

SPIRAL = DATA_FOLDER / "paris-6" / "test-spiral.npz"
REVOLUTIONS, RADIUS_M, HEIGHTS_M, POINTS = 3, 35.0, (2.0, 19.0), 150
"""Beyond a radius of 40 m the spiral would pass below roofs, where `users.outdoor` of paris-6 has nobody."""
SEGMENT = 5
"""Consecutive points that an interval draws together: errors of neighbours are alike."""
RUNS = {
    "ECC, B = 5, shipped weights": comparison(5, test=SPIRAL, snapshots=POINTS),
    "ECC, B = 4": comparison(4, "short-slot-b4", test=SPIRAL, snapshots=POINTS),
    "MFCNet": comparison(None, "short-mfcnet", scheme="mfcnet", test=SPIRAL, snapshots=POINTS),
    "MUSIC, triangulation": comparison(None, "music", scheme="music", test=SPIRAL, snapshots=POINTS),
}
DRAWN = ("ECC, B = 5, shipped weights", "MFCNet")


def spiral() -> Array:
    """Return the points (N, 3) [m] of the spiral around the square's centre, evenly spaced."""
    share = np.linspace(0, 1, POINTS)
    angle = 2 * np.pi * REVOLUTIONS * share
    height = HEIGHTS_M[0] + (HEIGHTS_M[1] - HEIGHTS_M[0]) * share
    return np.stack([RADIUS_M * np.cos(angle), RADIUS_M * np.sin(angle), height], 1)


class SpiralBench(ComparisonBench):
    """The runs, on the spiral, which is traced where it is missing."""

    def is_trained(self, name: str) -> bool:
        """Return whether the spiral has been traced, and the weights of a row exist."""
        return SPIRAL.is_file() and super().is_trained(name)

    def train(self, name: str) -> None:
        """Trace the spiral, and train the weights of a row, where they are missing.

        Raises:
            UserError: Sionna RT, its LLVM library or the path data are missing.
        """
        if not SPIRAL.is_file():
            scenario = load_scenario("paris-6")
            replace(Tracer(scenario).at(spiral()), digest=scenario.tracing_digest()).save(SPIRAL)
        if not super().is_trained(name):
            super().train(name)


def spiral_bench() -> SpiralBench:
    """Return the bench."""
    return SpiralBench(RUNS)


def tracking_rows(_: ComparisonBench) -> list[Row]:
    """Make a row for each method."""
    return [Row(label, tracked, (label,)) for label in RUNS]


def tracked(bench: ComparisonBench, names: Sequence[str]) -> Result:
    """Run the emulation; keep errors and fixes along the spiral, and the mean error of each revolution."""
    result = bench.run(names[0])
    columns = ["snapshot", "error_3d_m", "error_2d_m", "error_vertical_m", "x_m", "y_m", "z_m"]
    fixes = read_table(result.folder / "fixes.parquet", columns=columns).sort_by("snapshot")
    number = fixes["snapshot"].to_numpy()
    segment = (number // SEGMENT).astype(np.float64)[:, None]
    turn = number * REVOLUTIONS // POINTS
    found: Result = {"payload_bits_per_report": result.summary["payload_bits_per_report"], "snapshot": number.tolist()}
    for kind in ("error_3d_m", "error_2d_m", "error_vertical_m"):
        error = np.abs(fixes[kind].to_numpy())
        found[kind] = error_statistics(error, 1, segment)
        if kind == "error_3d_m":
            found["errors"] = error.round(2).tolist()
            found["by_revolution"] = [float(error[turn == n].mean()) for n in range(REVOLUTIONS)]
    found["fixes"] = np.stack([fixes[f"{axis}_m"].to_numpy() for axis in "xyz"], 1).round(2).tolist()
    return found


def tracking_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the spiral with the fixes of ECC and MFCNet in space, and the errors along it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    figure.get_layout_engine().set(wspace=0.12)  # type: ignore[union-attr,call-arg]  # of a constrained layout
    space, along = figure.add_subplot(1, 2, 1, projection="3d"), figure.add_subplot(1, 2, 2)
    truth = spiral()
    space.plot(*truth.T, color=INK, linewidth=1.2, label="user")
    for number, record in enumerate(records):
        found, colour = record["result"], COLOURS[number]
        if found is None or record["label"] not in DRAWN:
            continue
        fixes = np.array(found["fixes"])
        space.plot(*fixes.T, color=colour, linestyle="", marker="o", markersize=2.2, label=record["label"])
        along.plot(found["snapshot"], found["errors"], color=colour, linewidth=1.1, label=record["label"])
    space.locator_params(nbins=4)
    for axis in (space.xaxis, space.yaxis, space.zaxis):
        axis.pane.fill = False
    space.set_xlabel("x [m]")
    space.set_ylabel("y [m]")
    space.set_zlabel("height [m]")
    along.set_xlabel("point of the spiral")
    along.set_ylabel("3D error [m]")
    along.set_ylim(bottom=0.0)
    along.grid(True, color=GRID, linewidth=0.8)
    for axes in (space, along):
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    write_picture(figure, path)


def tracking_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        f"{REVOLUTIONS} revolutions of radius {RADIUS_M:g} m around the square's centre, outdoors throughout, rising",
        f"from {HEIGHTS_M[0]:g} to {HEIGHTS_M[1]:g} m, {POINTS} points, each located by itself. Intervals resample",
        f"segments of {SEGMENT} neighbouring points. The",
        "paper's two mean errors were lost from its text; it says that ECC follows the track closer than MFCNet in the",
        "plane and in height.",
        "",
    ]
    head = ["", "payload [bit]", "mean [m] (95 %)", "median [m]", "p90 [m]", "horizontal [m]", "vertical [m]",
            "mean by revolution [m]"]  # fmt: skip

    def cells(found: Record) -> list[str]:
        means = [millimetres(found[kind]["mean"]) for kind in ("error_2d_m", "error_vertical_m")]
        turns = " / ".join(map(millimetres, found["by_revolution"]))
        return [str(found["payload_bits_per_report"]), *statistics(found["error_3d_m"]), *means, turns]

    return markdown.page(name, [*text, *markdown.table(head, markdown.measured(records, cells))], records)
