"""Statistics of position errors, under the same names in every summary, table and page.

Intervals are bootstrap intervals: percentiles over resamples, whose draws depend on the seed alone. A resample draws
positions, each with all its errors: errors at one position share its channel, so they are not independent (a cluster
bootstrap; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).
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


def error_statistics(error_m: FloatArray, seed: int, position: FloatArray | None = None) -> dict[str, Any] | None:
    """Return mean, median, RMSE, percentiles and the 95 % interval of the mean of N errors [m]; None if N = 0.

    `position` (N, D) holds the true positions, some of which may be equal; None stands for N different ones.
    """
    if len(error_m) == 0:
        return None
    return {
        "mean": float(error_m.mean()),
        "median": float(np.median(error_m)),
        "rmse": rmse(error_m),
        "p90": float(np.percentile(error_m, 90)),
        "p95": float(np.percentile(error_m, 95)),
        "ci95_of_mean": ci95(error_m, lambda drawn: float(drawn.mean()), seed, position),
    }


def sample_statistics(error_m: FloatArray, position: FloatArray | None = None) -> dict[str, Any]:
    """Return `error_statistics` of N > 0 errors [m] with seed 0, and N as ``samples``."""
    found = error_statistics(error_m, 0, position)
    assert found is not None, "there are no errors"
    return found | {"samples": len(error_m)}


def rmse(error_m: FloatArray) -> float:
    """Return the root mean square [m]."""
    return float(np.sqrt(np.square(error_m).mean()))


def ci95(
    error_m: FloatArray,
    statistic: Callable[[FloatArray], float],
    seed: int = 0,
    position: FloatArray | None = None,
) -> list[float]:
    """Return the ends of the 95 % interval of a statistic of N errors at positions (N, D), from 1000 resamples."""
    place = np.arange(len(error_m)) if position is None else places(position)
    grouped = error_m[np.argsort(place, kind="stable")]
    size = np.bincount(place)
    start = np.cumsum(size) - size
    draw = generator(seed, "bootstrap")
    values = []
    for _ in range(_RESAMPLES):
        drawn = draw.integers(0, len(size), len(size))
        sizes = size[drawn]
        shift = start[drawn] - (np.cumsum(sizes) - sizes)
        values.append(statistic(grouped[np.arange(sizes.sum()) + np.repeat(shift, sizes)]))
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def places(position: FloatArray) -> npt.NDArray[np.int64]:
    """Return the number (N,) of each position (N, D) among the different ones, in order of their first occurrence."""
    _, first, place = np.unique(position, axis=0, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place.ravel()]


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
