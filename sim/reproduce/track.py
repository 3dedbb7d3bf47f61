"""``track``: the error of tracks against how often a user reports, at several lengths of a report, on walks.

The walks are traced and emulated at the shortest interval; longer ones leave fixes out. A fix does not depend on
others, so these are the fixes of a run with fewer reports. Each interval begins at each of the snapshots that it leaves
out, so that all intervals are measured on the same fixes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyarrow.parquet import read_table

from cloud.tracking import Motion, kalman, smooth
from sim.drawing import COLOURS, interval_bars, new_axes, save_figure
from sim.learn.splits import split_positions
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.records.statistics import sample_statistics
from sim.reproduce import markdown
from sim.reproduce.bench import require_traced
from sim.reproduce.ecc.runs import millimetres
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import NOT_TRAINED, Record, with_interval
from sim.reproduce.rows import Result, Row
from sim.world.paths import load_paths
from sim.world.scenario import Walk, load_scenario
from sim.world.store import ASSET_FOLDER, DATA_FOLDER

_Floats = npt.NDArray[np.float64]

NAME = "paris-6-walks"
FOLDER = DATA_FOLDER / NAME
TEST, TUNE = FOLDER / "test-user.npz", FOLDER / "tune-user.npz"
LENGTHS = {"ecc-rd": (16,), "ecc-klt": (64,), "twin": (64,)}
TUNED = 10
"""Training walks that constants are chosen on."""
EVERY = (1, 2, 5, 10, 20)
"""Snapshots from one report to the next."""
ACCELERATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Power spectral densities to choose from [m²/s³]."""
HEAD = ["report every [s]", "bit/s", "q [m²/s³]", "fixes [m] (95 %)", "filtered [m] (95 %)", "smoothed [m] (95 %)",
        "last fix [m] (95 %)", "predicted [m] (95 %)", "interpolated [m] (95 %)"]  # fmt: skip
AT_FIXES, AT_ANY_TIME = ("raw", "filtered", "smoothed"), ("held", "predicted", "interpolated")
_TRAINING = ", training walks"


class TrackBench(Emulations):
    """Runs on walks held out, and on walks to choose constants on."""

    def __init__(self) -> None:
        super().__init__(runs())

    def require_data(self, names: Iterable[str]) -> None:
        """Require the traced walks.

        Raises:
            UserError: the walks are missing.
        """
        require_traced([(NAME, FOLDER / "paths.npz", NAME)])

    def is_trained(self, name: str) -> bool:
        """Return whether the file of training walks exists, if the run is one on them."""
        return self.settings[name].test != TUNE or TUNE.is_file()

    def train(self, name: str) -> None:
        """Write the file of training walks."""
        scenario, paths = load_scenario(NAME), load_paths(FOLDER / "paths.npz")
        assert scenario.walk is not None
        training = split_positions(scenario, paths.position, "user", paths.user).train
        paths.select(training[: TUNED * scenario.walk.snapshots]).save(TUNE)


def runs() -> dict[str, EmulateSettings]:
    """Return the settings of the runs, by label."""
    scenario = load_scenario(NAME)
    assert scenario.walk is not None
    found = {}
    for scheme, lengths in LENGTHS.items():
        for bits in lengths:
            label = f"{scheme}, {bits} bit"
            found[label] = EmulateSettings(
                scenario=NAME,
                scheme=scheme,
                snapshots=scenario.splits.test,
                driver="process",
                batch=100,
                interval_ms=10.0,
                controls=False,
                capture=False,
                report=False,
                test=TEST,
                weights=ASSET_FOLDER / "paris-6" / f"{scheme}.safetensors",
                options=(("bits_per_report", bits),),
                output=FOLDER / "runs",
            )
            found[label + _TRAINING] = replace(found[label], snapshots=TUNED * scenario.walk.snapshots, test=TUNE)
    return found


def track_rows(bench: TrackBench) -> list[Row]:
    """Make a row for each scheme and length."""
    labels = [label for label in bench.settings if not label.endswith(_TRAINING)]
    return [Row(label, tracked, (label, label + _TRAINING), section=label) for label in labels]


@dataclass(frozen=True)
class Walked:
    """Fixes of W walks of N snapshots, all (W, N, …) [m] or [m²].

    Attributes:
        fix: (W, N, 3); NaN where there is none.
        covariance: (W, N, 3, 3) as claimed; NaN where there is none.
        truth: (W, N, 3) true positions.
    """

    fix: _Floats
    covariance: _Floats
    truth: _Floats

    @classmethod
    def of(cls, result: RunResult, test: Path, steps: int) -> Walked:
        """Read the fixes of a run, whose test positions are those in `test`, walks of N = `steps`."""
        table = read_table(result.folder / "fixes.parquet", columns=["snapshot", "x_m", "y_m", "z_m", "covariance_m2"])
        truth = load_paths(test).position
        fix, covariance = np.full_like(truth, np.nan), np.full((len(truth), 3, 3), np.nan)
        snapshot, known = table["snapshot"].to_numpy(), table["covariance_m2"].is_valid().to_numpy()
        fix[snapshot] = np.stack([table[f"{axis}_m"].to_numpy() for axis in "xyz"], 1)
        claimed = np.array(table["covariance_m2"].filter(known).to_pylist(), np.float64)
        covariance[snapshot[known]] = claimed.reshape(-1, 3, 3)
        return cls(*(values.reshape(-1, steps, *values.shape[1:]) for values in (fix, covariance, truth)))

    def errors(self, every: int, acceleration: float, deviation: float, walk: Walk) -> dict[str, _Floats]:
        """Return the errors (every·W, N) [m] of tracks of which each is made of one fix in `every`.

        Args:
            every: snapshots from one report to the next; track o·W + w begins with snapshot o of walk w.
            acceleration: power spectral density q [m²/s³].
            deviation: standard deviation of fixes that claim no covariance [m].
            walk: interval and speeds.

        Returns:
            `AT_FIXES`, NaN elsewhere, and `AT_ANY_TIME` from a track's first fix on.
        """
        motion = Motion(walk.interval_s, acceleration, walk.speed_mps[1])
        times = self.fix.shape[1]
        number = np.arange(times)
        reported = (number % every == np.arange(every)[:, None])[:, None, :, None]
        fix = np.where(reported, self.fix, np.nan).reshape(-1, times, 3)
        truth = np.tile(self.truth, (every, 1, 1))
        covariance = np.where(np.isnan(self.covariance), deviation**2 * np.eye(3), self.covariance)
        filtered = kalman(fix, np.tile(covariance, (every, 1, 1, 1)), motion)
        has_fix = np.isfinite(fix[..., 0])
        last = np.maximum.accumulate(np.where(has_fix, number, -1), axis=1)
        held = np.where(last[..., None] < 0, np.nan, np.take_along_axis(fix, last.clip(0)[..., None], 1))
        positions = (held, filtered.states.position, smooth(filtered, motion).position)
        found = [np.linalg.norm(position - truth, axis=2) for position in positions]
        at_fixes = [np.where(has_fix, error, np.nan) for error in found]
        return dict(zip((*AT_FIXES, *AT_ANY_TIME), (*at_fixes, *found), strict=True))


def tracked(bench: TrackBench, names: Sequence[str]) -> Result:
    """Track the walks of a run at each interval, with constants chosen on the training walks of another."""
    walk = load_scenario(NAME).walk
    assert walk is not None
    summary = bench.run(names[0]).summary
    test, tune = (
        Walked.of(bench.run(name), file, walk.snapshots) for name, file in zip(names, (TEST, TUNE), strict=True)
    )
    per_fix = summary["bs"] * summary["payload_bits_per_report"] + 8 * summary["bytes"]["side"] / summary["snapshots"]
    deviation = float(1.4826 * np.nanmedian(np.abs(tune.fix - tune.truth)))
    rows = []
    for every in EVERY:
        chosen = chosen_acceleration(tune, every, deviation, walk)
        seconds = every * walk.interval_s
        row = {"interval_s": seconds, "bits_per_s": per_fix / seconds, "acceleration": chosen}
        errors = test.errors(every, chosen, deviation, walk)
        rows.append(row | {name: _statistics(error, len(test.fix)) for name, error in errors.items()})
    return {"fixes": summary["fixes"], "snapshots": summary["snapshots"], "deviation_m": deviation, "intervals": rows}


def chosen_acceleration(tune: Walked, every: int, deviation: float, walk: Walk) -> float:
    """Return the one of `ACCELERATIONS` with the least mean error of the filter at any time."""
    error = {q: float(np.nanmean(tune.errors(every, q, deviation, walk)["predicted"])) for q in ACCELERATIONS}
    return min(error, key=error.__getitem__)


def _statistics(error: _Floats, walks: int) -> dict[str, Any]:
    """Return the mean of errors (every·W, N) [m] with its interval, over W walks."""
    walk = np.broadcast_to((np.arange(len(error)) % walks)[:, None], error.shape)
    known = np.isfinite(error)
    found = sample_statistics(error[known], walk[known])
    kept = {name: found[name] for name in ("mean", "samples", "clusters")}
    return {**kept, "ci95_of_mean": [round(end, 5) for end in found["ci95_of_mean"]]}


def track_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        "`--track` on walks of 20 s at 1 to 2 m/s in `paris-6-walks`, in process, with the weights of `paris-6`: mean",
        "3D error at the snapshots that have a fix (fixes, filtered, smoothed), and at any time from the first fix on,",
        "five times a second (the last fix, the filter's prediction, the smoother's interpolation). Bits are those of",
        f"all six base stations, side information included. The density q of the acceleration was chosen on {TUNED}",
        "training walks for the least error of the prediction. ECC claims no covariance: the deviation of a fix is the",
        "median absolute error of training walks, times 1.48. `twin` claims its own.",
        "",
    ]
    lines = markdown.sectioned(records, cells)
    return markdown.page(name, [*text, *markdown.table(HEAD, lines)], records)


def cells(record: Record) -> list[list[str]]:
    """Return a record's lines under `HEAD`, one an interval."""
    found = record["result"]
    if not found:
        return [["", NOT_TRAINED]]
    return [
        [
            f"{row['interval_s']:g}",
            f"{row['bits_per_s']:,.0f}".replace(",", " "),
            f"{row['acceleration']:g}",
            *(with_interval(row[name], show=millimetres) for name in (*AT_FIXES, *AT_ANY_TIME)),
        ]
        for row in found["intervals"]
    ]


def track_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the error at any time against bits per second: the last fix, predicted, interpolated."""
    figure, axes = new_axes(3)
    titles = ("last fix", "filtered, predicted", "smoothed, interpolated")
    for panel, name, title in zip(axes, AT_ANY_TIME, titles, strict=True):
        for number, record in enumerate(one for one in records if one["result"]):
            points = [
                (row["bits_per_s"], row[name]["mean"], *row[name]["ci95_of_mean"])
                for row in record["result"]["intervals"]
            ]
            interval_bars(panel, points, record["label"], COLOURS[number])
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("bits per second, all base stations")
        panel.set_title(title, fontsize=10)
        panel.sharey(axes[0])
    axes[0].set_ylabel("mean 3D error at any time [m]")
    save_figure(figure, path)
