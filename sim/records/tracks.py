"""Tracks of the users of a run: fixes of walks, filtered and smoothed (`cloud.tracking`), beside the table of fixes.

A network knows which user a fix is of, and when it was measured; the true positions are not needed, and not given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cloud.tracking import Motion, deviation_of, kalman, smooth
from sim.plan.settings import EmulateSettings
from sim.records.statistics import error_statistics
from sim.world.scenario import Scenario, Walk

if TYPE_CHECKING:
    import pyarrow as pa

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_UNKNOWN_M = 1.0
"""Deviation of fixes [m] where no three follow each other: then tracks hardly depend on it."""


@dataclass(frozen=True)
class Tracks:
    """Fixes and tracks of W walks, at the N snapshots of each: all (W, N, 3) [m].

    Attributes:
        fix: the fixes; NaN where a snapshot has none.
        filtered: positions given the fixes until then; NaN before a walk's first fix.
        smoothed: the same given all fixes of the walk.
        snapshot: (W, N) numbers of the snapshots; -1 behind the run's last one.
        deviation_m: standard deviation of fixes without a covariance [m]; None if all have one.
    """

    fix: _Floats
    filtered: _Floats
    smoothed: _Floats
    snapshot: _Ints
    deviation_m: float | None


def tracks_of(settings: EmulateSettings, scenario: Scenario, fixes: pa.Table) -> Tracks:
    """Filter and smooth the fixes of each walk.

    Args:
        settings: options of `--track`.
        scenario: its walks; the test positions are whole ones (`sim.plan.plan.require_walks`).
        fixes: columns ``snapshot``, ``position`` and ``covariance`` of N fixes.
    """
    assert scenario.walk is not None, "the plan has checked it"
    steps = scenario.walk.snapshots
    number = np.arange(-(-settings.snapshots // steps) * steps)
    snapshot = np.where(number < settings.snapshots, number, -1).reshape(-1, steps)
    row = np.full(settings.snapshots + 1, -1)
    row[fixes["snapshot"].to_numpy()] = np.arange(len(fixes))
    at = row[snapshot]
    position = np.full((len(fixes) + 1, 3), np.nan)
    position[:-1] = fixes["position"].combine_chunks().flatten().to_numpy().reshape(-1, 3)
    claimed = np.full((len(fixes) + 1, 3, 3), np.nan)
    known = np.flatnonzero(fixes["covariance"].is_valid().to_numpy())
    claimed[known] = np.array(fixes["covariance"].take(known).to_pylist(), np.float64).reshape(-1, 3, 3)
    return track(scenario.walk, settings, position[at], claimed[at], snapshot)


def track(walk: Walk, settings: EmulateSettings, fix: _Floats, covariance: _Floats, snapshot: _Ints) -> Tracks:
    """Filter and smooth fixes (W, N, 3) [m], NaN where there is none, with their covariances [m²] or NaN.

    Args:
        walk: the time between two fixes, and how fast users are: the fastest is taken for the deviation of a
            component of the velocity with which a walk begins.
        settings: options of `--track`.
        fix: fixes (W, N, 3).
        covariance: (W, N, 3, 3).
        snapshot: (W, N) numbers of the snapshots.
    """
    motion = Motion(walk.interval_s, settings.track_acceleration, walk.speed_mps[1])
    unclaimed = np.isnan(covariance[..., 0, 0]) & np.isfinite(fix[..., 0])
    deviation = None
    if unclaimed.any():
        found = deviation_of(fix)
        deviation = settings.track_deviation or (found if math.isfinite(found) else _UNKNOWN_M)
        covariance = covariance.copy()
        covariance[unclaimed] = deviation**2 * np.eye(3)
    filtered = kalman(fix, covariance, motion)
    return Tracks(fix, filtered.states.position, smooth(filtered, motion).position, snapshot, deviation)


def with_tracks(fixes: pa.Table, tracks: Tracks | None) -> pa.Table:
    """Return a table of fixes with the columns ``track_…`` and ``smooth_…``; null without tracks."""
    import pyarrow as pa

    found = {name: np.full((len(fixes), 3), np.nan) for name in ("track", "smooth")}
    if tracks is not None:
        row = {number: at for at, number in enumerate(fixes["snapshot"].to_pylist())}
        of_fix = np.array([row.get(number, -1) for number in tracks.snapshot.ravel().tolist()])
        for name, position in (("track", tracks.filtered), ("smooth", tracks.smoothed)):
            found[name][of_fix[of_fix >= 0]] = position.reshape(-1, 3)[of_fix >= 0]
    for name, position in found.items():
        for axis, values in zip("xyz", position.T, strict=True):
            fixes = fixes.append_column(f"{name}_{axis}_m", pa.array(values, pa.float64(), from_pandas=True))
    return fixes


def track_statistics(tracks: Tracks, truth: _Floats, settings: EmulateSettings) -> dict[str, Any]:
    """Return statistics of the 3D error [m] of fixes, and of tracks at the same snapshots and at bridged ones.

    Intervals resample walks. `truth` (U, 3) [m] holds the positions of the test users.
    """
    real = tracks.snapshot >= 0
    error = {
        name: np.linalg.norm(position - truth[tracks.snapshot % len(truth)], axis=2)
        for name, position in (("raw", tracks.fix), ("filtered", tracks.filtered), ("smoothed", tracks.smoothed))
    }
    walk = np.broadcast_to(np.arange(len(real))[:, None], real.shape)

    def statistics(name: str, chosen: npt.NDArray[np.bool_]) -> dict[str, Any] | None:
        return error_statistics(error[name][chosen], settings.seed, walk[chosen])

    has_fix = real & np.isfinite(error["raw"])
    bridged = real & ~has_fix & np.isfinite(error["filtered"])
    return {
        "walks": len(real),
        "deviation_m": tracks.deviation_m,
        "acceleration_m2ps3": settings.track_acceleration,
        **{name: statistics(name, has_fix) for name in error},
        "bridged": {
            "snapshots": int(bridged.sum()),
            **{name: statistics(name, bridged) for name in ("filtered", "smoothed")},
        },
    }
