"""Emulations behind ECC's tables, and the bench that trains the networks of comparisons where they are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pyarrow.parquet import read_table

from sim.drawing import COLOURS
from sim.files import write_text
from sim.learn.device import training_device
from sim.learn.music import write_music
from sim.learn.trainer import TrainProgress
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.records.statistics import ci95, errors_by_distance
from sim.reproduce.bench import require_traced
from sim.reproduce.ecc.campaign import Lengths, jobs, run_job, weights_file
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import NOT_TRAINED, Record, with_interval
from sim.reproduce.rows import Result
from sim.toml.write import toml_text
from sim.world.paths import PathSet, load_paths
from sim.world.scenario import load_scenario
from sim.world.store import DATA_FOLDER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAINED = DATA_FOLDER / "paris-6" / "weights"
PAPER = {"lossless": (0.42, 0.75), "B = 5": (0.48, 0.83), "B = 4": (0.52, 0.90), "B = 3": (0.54, 0.92),
         "B = 2": (0.56, 0.97)}  # fmt: skip
"""Mean and 90th percentile of the 3D error [m] in the paper's Table II."""
HEAD = ["", "payload [bit]", "of lossless", "paper mean / p90 [m]", "mean [m] (95 %)", "median [m]", "p90 [m]"]
MUSIC = "music"
_DISTANCES_M = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 6.0, 8.0, 12.0)
_PERCENTILES = (*range(0, 100, 2), 99)


def settings_of(bits: int | None, trained: str = "", **changes: Any) -> EmulateSettings:
    """Return the settings of a row; `trained` names weights of the campaign, by default the shipped ones are used."""
    settings = EmulateSettings(
        bits=bits,
        snapshots=2000,
        driver="process",
        batch=20,
        interval_ms=10.0,
        weights=weights_file(TRAINED, trained) if trained else None,
        output=DATA_FOLDER / "paris-6" / "runs",
    )
    return replace(settings, **changes)


_VARIANTS = ContextVar("_VARIANTS", default=DATA_FOLDER / "scenarios")


@contextmanager
def variants_in(folder: Path) -> Iterator[None]:
    """Let scenario files of variants be written to another folder in this block."""
    token = _VARIANTS.set(folder)
    try:
        yield
    finally:
        _VARIANTS.reset(token)


def variant(name: str, table: Mapping[str, Mapping[str, float]]) -> str:
    """Return the path of a scenario file that changes paris-6 by these tables; write it if there is none."""
    path = _VARIANTS.get() / f"paris-6-{name}.toml"
    text = toml_text({"extends": "paris-6", **table})
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return str(path)


class ComparisonBench(Emulations):
    """Emulations with networks of the campaign's comparisons, which are trained where they are missing."""

    def is_trained(self, name: str) -> bool:
        """Return whether the weights of a row exist, or are not for this bench to make."""
        weights = self.settings[name].weights
        return weights is None or weights.is_file() or not (weights.stem == MUSIC or _job_of(weights.stem))

    def train(self, name: str) -> None:
        """Run the campaign's job that makes the weights of a row.

        Raises:
            UserError: the path data are missing.
        """
        weights = self.settings[name].weights
        assert weights is not None
        scenario = load_scenario("paris-6")
        if weights.stem == MUSIC:
            write_music(scenario, weights)
            return
        job = _job_of(weights.stem)
        run_job(job, _JOBS[job], scenario, _paths(), weights.parent, training_device(), _quiet)


def _quiet(_: TrainProgress) -> None:
    pass


_JOBS = {name: job for name, job in jobs(Lengths()).items() if name != "headline"}


def _job_of(weights: str) -> str:
    """Return the job that makes weights of this name; nothing if none does."""
    return next((name for name, job in _JOBS.items() if weights in job.names), "")


@cache
def _paths() -> PathSet:
    file = DATA_FOLDER / "paris-6" / "paths.npz"
    require_traced([("paris-6", file, "paris-6")])
    return load_paths(file)


def emulated(bench: Emulations, names: Sequence[str], *, controls: bool = False) -> Result:
    """Run the emulation; keep its errors, payload and, if wanted, controls."""
    result = bench.run(names[0])
    kept = ["error_3d_m", "error_2d_m", "error_vertical_m", "payload_bits_per_report", "payload_ratio",
            "snapshots", "weights_digest", *["controls"] * controls]  # fmt: skip
    fixes = read_table(result.folder / "fixes.parquet", columns=["error_3d_m", "training_distance_m"])
    distance, error = (fixes[name].to_numpy() for name in ("training_distance_m", "error_3d_m"))
    bins = errors_by_distance(distance, error, _DISTANCES_M)
    return {name: result.summary.get(name) for name in kept} | {"by_distance": bins}


def compared(bench: Emulations, names: Sequence[str]) -> Result:
    """Run the emulation `names[0]`; compare it, position by position, with `names[1]` if there is one.

    ``difference``: mean difference of the errors [m] with its interval; ``cdf``: percentiles of the error [m].
    """
    result = emulated(bench, names)
    error = errors(bench.run(names[0]))
    result["cdf"] = {str(share): round(float(np.percentile(error, share)), 4) for share in _PERCENTILES}
    if len(names) > 1:
        apart = error - errors(bench.run(names[1]))
        interval = ci95(apart, lambda drawn: float(drawn.mean()), 1)
        result["difference"] = {"mean": float(apart.mean()), "ci95_of_mean": interval}
    return result


def errors(result: RunResult) -> npt.NDArray[np.float64]:
    """Return the 3D errors (N,) [m] of a run, by snapshot."""
    fixes = read_table(result.folder / "fixes.parquet", columns=["snapshot", "error_3d_m"]).sort_by("snapshot")
    found: npt.NDArray[np.float64] = fixes["error_3d_m"].to_numpy()
    return found


def cells(record: Record) -> list[str]:
    """Return a record's cells under `HEAD`."""
    known, found = record["paper"], record["result"]
    paper = f"{known['mean']:.2f} / {known['p90']:.2f}" if known else ""
    if found is None:
        return [record["label"], "", "", paper, NOT_TRAINED]
    payload = f"{found['payload_bits_per_report']:,}".replace(",", " ")
    return [record["label"], payload, f"{100 * found['payload_ratio']:.2f} %", paper, *statistics(found["error_3d_m"])]


def statistics(found: dict[str, Any]) -> list[str]:
    """Return mean with interval, median and 90th percentile."""
    return [with_interval(found, show=millimetres), millimetres(found["median"]), millimetres(found["p90"])]


def millimetres(value: float) -> str:
    """Format a length [m] to a millimetre."""
    return f"{value:.3f}"


def paper_of(payload: str) -> dict[str, float]:
    """Return the paper's mean and 90th percentile [m] of Table II for a payload."""
    return dict(zip(("mean", "p90"), PAPER[payload], strict=True))


def comparison(bits: int | None, trained: str = "", **changes: Any) -> EmulateSettings:
    """Return `settings_of` without controls and captures, which a table's other rows have or need not."""
    return settings_of(bits, trained, controls=False, capture=False, **changes)


def difference(record: Record) -> str:
    """Return the mean difference of a record's errors with its interval [m]; empty if there is none."""
    found = (record["result"] or {}).get("difference")
    if found is None:
        return ""
    low, high = found["ci95_of_mean"]
    return f"{found['mean']:+.3f} ({low:+.3f} to {high:+.3f})"


def draw_cdf(axes: Axes, records: Sequence[Record]) -> None:
    """Draw the distribution of each record's error, from its percentiles."""
    for number, record in enumerate(one for one in records if one["result"]):
        points = record["result"]["cdf"]
        share, error = [float(key) / 100 for key in points], list(points.values())
        axes.plot(error, share, color=COLOURS[number % len(COLOURS)], linewidth=1.6, label=record["label"])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("3D error [m]")
    axes.set_ylabel("share of positions below")
