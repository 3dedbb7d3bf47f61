"""What is said of N errors: Euclidean in 3D unless named otherwise, in metres, with bootstrap intervals.

MAE is the mean of the distances |p̂ − p|, RMSE the root of their mean square; per axis they are those of the
coordinate's own error.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fronthaul.draws import generator

FloatArray = npt.NDArray[np.float64]
_RESAMPLES = 1000
DISTANCES_M = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0)


def statistics(estimate: npt.ArrayLike, truth: npt.ArrayLike) -> dict[str, Any]:
    """Statistics [m] of estimates (N, 3) [m] of true positions (N, 3) [m].

    Intervals hold 95 %: percentiles of 1000 resamples of the N users.
    """
    error = np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)
    distance: FloatArray = np.linalg.norm(error, axis=1)
    drawn = distance[generator(0, "bootstrap").integers(0, len(distance), (_RESAMPLES, len(distance)))]
    return {
        **_plain(distance),
        "median": float(np.median(distance)),
        "p95": float(np.percentile(distance, 95)),
        "ci95_of_mae": _interval(drawn.mean(1)),
        "ci95_of_rmse": _interval(np.sqrt(np.square(drawn).mean(1))),
        "samples": len(distance),
        "horizontal": _plain(np.linalg.norm(error[:, :2], axis=1)),
        "axes": {axis: _plain(np.abs(error[:, place])) for place, axis in enumerate("xyz")},
    }


def _plain(distance: FloatArray) -> dict[str, float]:
    return {
        "rmse": float(np.sqrt(np.square(distance).mean())),
        "mae": float(distance.mean()),
        "p90": float(np.percentile(distance, 90)),
    }


def _interval(values: FloatArray) -> list[float]:
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def by_distance(
    training: FloatArray, truth: FloatArray, estimate: FloatArray, edges_m: Sequence[float] = DISTANCES_M
) -> list[dict[str, float]]:
    """Mean errors [m] in bins of the distance to the nearest training position; bins without users are left out.

    Args:
        training: (P, 3) [m].
        truth: (N, 3) [m].
        estimate: (N, 3) [m].
        edges_m: lower ends of the bins, rising from 0.
    """
    apart = cKDTree(training).query(truth)[0]
    error = np.linalg.norm(estimate - truth, axis=1)
    bins = []
    for low, high in itertools.pairwise((*edges_m, float("inf"))):
        inside = (apart >= low) & (apart < high)
        if inside.any():
            bins.append({"from_m": low, "samples": int(inside.sum()), "mae": float(error[inside].mean())})
    return bins
