"""The table of tracks: fixes left out, errors at fixes and at any time, constants of training walks, page, picture."""

from pathlib import Path

import numpy as np
import pytest

from sim.reproduce.track import ACCELERATIONS, AT_ANY_TIME, AT_FIXES, Walked, cells, chosen_acceleration, track_draw
from sim.world.scenario import Walk

WALK = Walk(speed_mps=(1.0, 2.0), snapshots=40, interval_s=0.5)


@pytest.fixture(scope="module")
def walked() -> Walked:
    """Users on straight lines, fixes half a metre off, one of them missing, every second one with a covariance."""
    draw = np.random.default_rng(1)
    start, velocity = draw.normal(0, 20, (8, 1, 3)), draw.normal(0, 1, (8, 1, 3))
    truth = start + velocity * WALK.interval_s * np.arange(40)[:, None]
    fix = truth + draw.normal(0, 0.5, truth.shape)
    fix[0, 7] = np.nan
    covariance = np.full((8, 40, 3, 3), np.nan)
    covariance[:, ::2] = 0.25 * np.eye(3)
    return Walked(fix, covariance, truth)


def test_every_interval_is_measured_on_the_same_fixes(walked: Walked) -> None:
    off = np.linalg.norm(walked.fix - walked.truth, axis=2)
    for every in (1, 4):
        found = walked.errors(every, 0.01, 0.5, WALK)
        assert set(found) == {*AT_FIXES, *AT_ANY_TIME} and found["raw"].shape == (every * 8, 40)
        assert sorted(found["raw"][np.isfinite(found["raw"])]) == pytest.approx(sorted(off[np.isfinite(off)]))
        assert np.nanmean(found["smoothed"]) < np.nanmean(found["filtered"]) < np.nanmean(found["raw"])
        known = np.isfinite(found["held"])
        assert [np.array_equal(np.isfinite(found[name]), known) for name in AT_ANY_TIME] == [True] * 3
        assert known.sum() == 320 * every - 8 * sum(range(every))


def test_a_fix_held_grows_old(walked: Walked) -> None:
    found = walked.errors(4, 0.01, 0.5, WALK)
    third = 3 * 8 + 2  # begins with snapshot 3 of walk 2
    held = np.linalg.norm(walked.fix[2, 11] - walked.truth[2, 14])
    assert found["held"][third, 14] == pytest.approx(held)
    assert np.isnan(found["held"][third, 2]) and np.isnan(found["raw"][third, 14])
    assert np.nanmean(found["interpolated"]) < np.nanmean(found["predicted"]) < np.nanmean(found["held"])


def test_who_walks_straight_needs_little_noise(walked: Walked) -> None:
    assert chosen_acceleration(walked, 1, 0.5, WALK) == ACCELERATIONS[0]


def test_a_picture_and_a_line_for_each_interval(tmp_path: Path) -> None:
    error = {"mean": 0.5, "ci95_of_mean": [0.45, 0.55]}
    rows = [
        {"interval_s": seconds, "bits_per_s": 1984 / seconds, "acceleration": 0.1}
        | {name: error for name in (*AT_FIXES, *AT_ANY_TIME)}
        for seconds in (0.2, 2.0)
    ]
    record = {"label": "ecc-klt, 64 bit", "section": "", "result": {"intervals": rows}}
    assert cells(record)[1] == ["2", "992", "0.1", *["0.500 (0.450–0.550)"] * 6]
    track_draw(tmp_path / "track.png", [record])
    assert (tmp_path / "track.png").stat().st_size > 10_000
