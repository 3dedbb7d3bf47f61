"""What is said of N errors [m]: mean with its 95 % interval, median, 90th percentile."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from fronthaul.draws import generator
from sim.learn.diffloc.evaluate import FloatArray
from sim.learn.diffloc.features import SCALE_M

_RESAMPLES = 1000
DISTANCES_M = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)


def statistics(errors_m: FloatArray) -> dict[str, Any]:
    """Statistics of errors (N,) [m]; the interval is a bootstrap's, percentiles of the means of 1000 resamples."""
    draw = generator(0, "bootstrap")
    count = len(errors_m)
    means = errors_m[draw.integers(0, count, (_RESAMPLES, count))].mean(1)
    return {
        "mean": float(errors_m.mean()),
        "ci95_of_mean": [float(value) for value in np.percentile(means, [2.5, 97.5])],
        "median": float(np.median(errors_m)),
        "p90": float(np.percentile(errors_m, 90)),
        "rms": float(np.sqrt(np.square(errors_m).mean())),
        "samples": count,
    }


def each_statistics(errors_m: FloatArray) -> list[dict[str, Any]]:
    """Statistics of each base station's errors (K, N) [m]."""
    return [statistics(row) for row in errors_m]


def training_distance_m(training: FloatArray, positions: FloatArray) -> FloatArray:
    """Distance (N,) [m] from normalised positions (N, D) to the nearest training position."""
    distance: FloatArray = cKDTree(training).query(positions)[0] * SCALE_M
    return distance


def by_distance(distance_m: FloatArray, errors_m: FloatArray) -> list[dict[str, float]]:
    """Mean errors [m] in bins of the distance to the nearest training position; bins without samples are left out."""
    bins = []
    for low, high in itertools.pairwise((*DISTANCES_M, float("inf"))):
        inside = (distance_m >= low) & (distance_m < high)
        if inside.any():
            found = {"from_m": low, "samples": int(inside.sum()), "mean": float(errors_m[inside].mean())}
            bins.append(found)
    return bins


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation of one value for each seed."""
    return {"each": list(values), "mean": float(np.mean(values)), "spread": float(np.std(values, ddof=1))}
