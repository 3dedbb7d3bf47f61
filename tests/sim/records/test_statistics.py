"""Statistics of errors against NumPy and theory."""

import numpy as np
import pytest

from sim.records.statistics import (
    ci95,
    distance_to_nearest,
    error_statistics,
    errors_by_distance,
    numbered,
    rmse,
    sample_statistics,
)


def test_statistics_of_errors() -> None:
    errors = np.arange(1.0, 101.0)
    found = sample_statistics(errors)
    assert (found["mean"], found["median"], found["samples"]) == (50.5, 50.5, 100)
    assert [found["p90"], found["p95"]] == pytest.approx(np.percentile(errors, [90, 95]))
    low, high = found["ci95_of_mean"]
    assert low == pytest.approx(50.5 - 1.96 * 2.9, abs=0.7) and high == pytest.approx(50.5 + 1.96 * 2.9, abs=0.7)


def test_intervals_are_those_of_the_seeds_resamples() -> None:
    errors = np.random.default_rng(1).exponential(2.0, 300)
    found = error_statistics(errors, 7)
    assert found is not None and found == error_statistics(errors, 7) != error_statistics(errors, 8)
    assert found["ci95_of_mean"] == ci95(errors, lambda drawn: float(drawn.mean()), 7)
    low, high = ci95(errors, rmse)
    assert low < found["rmse"] < high
    assert error_statistics(errors[:0], 7) is None


def test_errors_at_one_position_are_resampled_together() -> None:
    draw = np.random.default_rng(2)
    each = draw.exponential(2.0, 100)
    errors = np.concatenate([each, each, each, each[:50]])  # further fixes of a position tell nothing new
    position = np.stack([np.arange(350.0) % 100, np.zeros(350)], 1)
    once, repeated, ignored = (ci95(*one) for one in (
        (each, np.median, 7), (errors, np.median, 7, position), (errors, np.median, 7)))  # fmt: skip
    assert ci95(each, np.mean, 7, position[:100]) == ci95(each, np.mean, 7)
    width = [high - low for low, high in (once, repeated, ignored)]
    assert width[1] == pytest.approx(width[0], rel=0.15) and width[2] < 0.7 * width[0]
    found = error_statistics(errors, 7, position)
    assert found is not None and found["ci95_of_mean"] == ci95(errors, np.mean, 7, position)


def test_walks_are_resampled_whole() -> None:
    """Errors within a walk that are alike make the interval of the mean that of the walks' means."""
    draw = np.random.default_rng(3)
    walk = np.repeat(np.arange(200), 10)
    errors = 5 + draw.normal(0, 2, 200)[walk] + draw.normal(0, 0.5, 2000)
    order = draw.permutation(2000)  # a random split leaves walks scattered
    found = sample_statistics(errors[order], walk[order])
    assert (found["samples"], found["clusters"]) == (2000, 200)
    low, high = found["ci95_of_mean"]
    assert high - low == pytest.approx(2 * 1.96 * np.hypot(2, 0.5 / 10**0.5) / 200**0.5, rel=0.15)
    low, high = sample_statistics(errors)["ci95_of_mean"]
    assert high - low < 2 * 1.96 * 2.2 / 2000**0.5


def test_positions_are_numbered_in_order_of_their_first_occurrence() -> None:
    assert numbered(np.array([[5.0, 0.0], [1.0, 1.0], [5.0, 0.0], [1.0, 0.0], [1.0, 1.0]])).tolist() == [0, 1, 0, 2, 1]


def test_errors_by_distance_to_the_nearest_training_position() -> None:
    training = np.array([[0.0, 0.0], [3.0, 4.0]])
    apart = distance_to_nearest(training, np.array([[0.1, 0.0], [0.0, 0.6], [3.0, 4.7], [93.0, 4.0]]))
    assert apart == pytest.approx([0.1, 0.6, 0.7, 90.0])
    bins = errors_by_distance(apart, np.array([1.0, 2.0, 4.0, 8.0]), (0.0, 0.5, 1.0, 40.0))
    assert bins == [
        {"from_m": 0.0, "samples": 1, "mean": 1.0},
        {"from_m": 0.5, "samples": 2, "mean": 3.0},
        {"from_m": 40.0, "samples": 1, "mean": 8.0},
    ]
    unknown = np.full(4, np.nan)  # of runs whose scenario has no training positions
    assert errors_by_distance(unknown, np.ones(4), (0.0, 1.0)) == []
