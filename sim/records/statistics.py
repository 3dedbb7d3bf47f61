"""Statistics of position errors, under the same names in every summary, table and page.

Intervals are bootstrap intervals: percentiles over resamples of the errors, whose draws depend on the seed alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fronthaul.draws import generator

FloatArray = npt.NDArray[np.float64]
_RESAMPLES = 1000


def error_statistics(error_m: FloatArray, seed: int) -> dict[str, Any] | None:
    """Return mean, median, RMSE, percentiles and the 95 % interval of the mean of N errors [m]; None if N = 0."""
    if len(error_m) == 0:
        return None
    return {
        "mean": float(error_m.mean()),
        "median": float(np.median(error_m)),
        "rmse": rmse(error_m),
        "p90": float(np.percentile(error_m, 90)),
        "p95": float(np.percentile(error_m, 95)),
        "ci95_of_mean": ci95(error_m, lambda drawn: float(drawn.mean()), seed),
    }


def sample_statistics(error_m: FloatArray) -> dict[str, Any]:
    """Return `error_statistics` of N > 0 errors [m] with seed 0, and N as ``samples``."""
    found = error_statistics(error_m, 0)
    assert found is not None, "there are no errors"
    return found | {"samples": len(error_m)}


def rmse(error_m: FloatArray) -> float:
    """Return the root mean square [m]."""
    return float(np.sqrt(np.square(error_m).mean()))


def ci95(error_m: FloatArray, statistic: Callable[[FloatArray], float], seed: int = 0) -> list[float]:
    """Return the ends of the 95 % interval of a statistic of N errors, from 1000 resamples."""
    draw, count = generator(seed, "bootstrap"), len(error_m)
    values = [statistic(error_m[draw.integers(0, count, count)]) for _ in range(_RESAMPLES)]
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def distance_to_nearest(training: FloatArray, position: FloatArray) -> FloatArray:
    """Return distances (N,) from positions (N, D) to the nearest of the training positions (P, D), in their unit."""
    distance: FloatArray = cKDTree(training).query(position)[0]
    return distance


def errors_by_distance(distance_m: FloatArray, error_m: FloatArray, edges_m: Sequence[float]) -> list[dict[str, float]]:
    """Return mean errors [m] in bins of the distance to the nearest training position; empty bins are left out.

    Args:
        distance_m: distances (N,) [m].
        error_m: errors (N,) [m].
        edges_m: lower edges of the bins, ascending; the last bin has no upper edge.
    """
    bins = []
    for low, high in itertools.pairwise((*edges_m, float("inf"))):
        inside = (distance_m >= low) & (distance_m < high)
        if inside.any():
            bins.append({"from_m": low, "samples": int(inside.sum()), "mean": float(error_m[inside].mean())})
    return bins
