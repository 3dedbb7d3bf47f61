"""Statistics of position errors, under the same names in every summary, table and page.

Intervals are bootstrap intervals: percentiles over resamples, whose draws depend on the seed alone. A resample draws
clusters, each with all its errors: the repeated fixes of one position share its channel, the positions of one walk most
of their surroundings, and the users of one layout its base stations, so their errors are not independent (a cluster
bootstrap; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). A cluster is whatever the
largest of these is; `cluster` arguments give each error a number (N,) or a position (N, D), equal within a cluster.
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
Cluster = npt.NDArray[np.float64] | npt.NDArray[np.int64]
_RESAMPLES = 1000


def error_statistics(error_m: FloatArray, seed: int, cluster: Cluster | None = None) -> dict[str, Any] | None:
    """Return mean, median, RMSE, percentiles and the 95 % interval of the mean of N errors [m]; None if N = 0.

    Without `cluster` (see above) the errors are independent.
    """
    if len(error_m) == 0:
        return None
    return {
        "mean": float(error_m.mean()),
        "median": float(np.median(error_m)),
        "rmse": rmse(error_m),
        "p90": float(np.percentile(error_m, 90)),
        "p95": float(np.percentile(error_m, 95)),
        "ci95_of_mean": ci95(error_m, lambda drawn: float(drawn.mean()), seed, cluster),
    }


def sample_statistics(error_m: FloatArray, cluster: Cluster | None = None) -> dict[str, Any]:
    """Return `error_statistics` of N > 0 errors [m] with seed 0, N as ``samples``, the clusters as ``clusters``."""
    found = error_statistics(error_m, 0, cluster)
    assert found is not None, "there are no errors"
    count = len(error_m) if cluster is None else int(numbered(cluster).max()) + 1
    return found | {"samples": len(error_m), "clusters": count}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return values, one for each seed of a training, with their mean and standard deviation."""
    return {"each": list(values), "mean": float(np.mean(values)), "spread": float(np.std(values, ddof=1))}


def rmse(error_m: FloatArray) -> float:
    """Return the root mean square [m]."""
    return float(np.sqrt(np.square(error_m).mean()))


def ci95(
    error_m: FloatArray,
    statistic: Callable[[FloatArray], float],
    seed: int = 0,
    cluster: Cluster | None = None,
) -> list[float]:
    """Return the ends of the 95 % interval of a statistic of N errors in clusters (see above), from 1000 resamples."""
    place = np.arange(len(error_m)) if cluster is None else numbered(cluster)
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


def numbered(cluster: Cluster) -> npt.NDArray[np.int64]:
    """Return the number (N,) of each value (N,) or (N, D) among the different ones, in order of first occurrence."""
    _, first, place = np.unique(cluster, axis=0, return_index=True, return_inverse=True)
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
