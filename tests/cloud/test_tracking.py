"""Tracks against the batch least-squares solution of the same model, with fixes missing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cloud.tracking import Filtered, Motion, deviation_of, kalman, smooth

MOTION = Motion(interval_s=0.7, acceleration=0.3, speed_mps=2.0)
Floats = npt.NDArray[np.float64]


def walked(draw: np.random.Generator, users: int, times: int, sigma: float) -> tuple[Floats, Floats, Floats]:
    """Truth, fixes and full covariances of users whom the model describes."""
    step, q = MOTION.interval_s, MOTION.acceleration
    one = q * np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
    noise = draw.multivariate_normal(np.zeros(2), one, (users, times, 3))
    position, velocity = draw.normal(0, 50, (users, 3)), draw.normal(0, MOTION.speed_mps, (users, 3))
    truth = np.empty((users, times, 3))
    for n in range(times):
        truth[:, n] = position
        position = position + step * velocity + noise[:, n, :, 0]
        velocity = velocity + noise[:, n, :, 1]
    root = draw.normal(0, sigma, (users, times, 3, 3)) + 0.3 * sigma * np.eye(3)
    covariance = root @ root.swapaxes(-1, -2)
    return truth, truth + np.einsum("wnij,wnj->wni", root, draw.normal(size=truth.shape)), covariance


def least_squares(fix: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """Solve for all states of one user at once: the normal equations of prior, steps and fixes."""
    step, q, times = MOTION.interval_s, MOTION.acceleration, len(fix)
    information, right = np.zeros((6 * times, 6 * times)), np.zeros(6 * times)

    def add(rows: Floats, value: Floats, spread: Floats) -> None:
        nonlocal information, right
        weighted = rows.T @ np.linalg.inv(spread)
        information += weighted @ rows
        right += weighted @ value

    select = np.eye(6 * times).reshape(times, 6, 6 * times)
    begin = int(np.flatnonzero(np.isfinite(fix).all(1))[0])
    add(select[begin, 3:], np.zeros(3), MOTION.speed_mps**2 * np.eye(3))
    for n in range(times):
        if np.isfinite(fix[n]).all():
            add(select[n, :3], fix[n], covariance[n])
        if n > begin:
            now, before = select[n], select[n - 1]
            moved = np.concatenate([now[:3] - before[:3] - step * before[3:], now[3:] - before[3:]])
            one = q * np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
            add(moved, np.zeros(6), np.kron(one, np.eye(3)))
    known = slice(6 * begin, None)
    spread = np.linalg.inv(information[known, known])
    whole = (spread @ right[known]).reshape(-1, 6)
    blocks = np.stack([spread[6 * n : 6 * n + 6, 6 * n : 6 * n + 6] for n in range(len(whole))])
    return whole, blocks


@pytest.fixture(scope="module")
def fixes() -> tuple[Floats, Floats, Floats]:
    truth, fix, covariance = walked(np.random.default_rng(1), 6, 25, 1.5)
    fix[0, 3:6] = fix[1, :4] = fix[2, -3:] = np.nan  # a gap, a late start, an early end
    return truth, fix, covariance


@pytest.fixture(scope="module")
def filtered(fixes: tuple[Floats, Floats, Floats]) -> Filtered:
    return kalman(fixes[1], fixes[2], MOTION)


def test_the_smoother_is_the_least_squares_solution_of_all_fixes(
    fixes: tuple[Floats, Floats, Floats], filtered: Filtered
) -> None:
    found = smooth(filtered, MOTION)
    for user in range(6):
        mean, spread = least_squares(fixes[1][user], fixes[2][user])
        begun = 25 - len(mean)
        assert begun == (4 if user == 1 else 0)
        assert np.isnan(found.mean[user, :begun]).all()
        np.testing.assert_allclose(found.mean[user, begun:], mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.covariance[user, begun:], spread, rtol=1e-6, atol=1e-6)


def test_the_filter_is_the_least_squares_solution_of_the_fixes_until_then(
    fixes: tuple[Floats, Floats, Floats], filtered: Filtered
) -> None:
    for user, n in ((0, 4), (0, 6), (1, 9), (2, 24), (3, 12), (4, 17)):
        mean, spread = least_squares(fixes[1][user, : n + 1], fixes[2][user])
        np.testing.assert_allclose(filtered.states.mean[user, n], mean[-1], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(filtered.states.covariance[user, n], spread[-1], rtol=1e-6, atol=1e-6)


def test_what_comes_later_does_not_change_the_filter(fixes: tuple[Floats, Floats, Floats], filtered: Filtered) -> None:
    part = kalman(fixes[1][:, :10], fixes[2][:, :10], MOTION)
    np.testing.assert_array_equal(part.states.mean, filtered.states.mean[:, :10])


def test_smoothing_beats_filtering_beats_fixes_where_the_model_holds() -> None:
    truth, fix, covariance = walked(np.random.default_rng(2), 40, 60, 1.5)
    kept = kalman(fix, covariance, MOTION)
    raw, causal, whole = (
        np.linalg.norm(found - truth, axis=-1).mean()
        for found in (fix, kept.states.position, smooth(kept, MOTION).position)
    )
    assert whole < 0.9 * causal < 0.9 * 0.7 * raw
    error = kept.states.position[:, 10:] - truth[:, 10:]
    inverse = np.linalg.inv(kept.states.covariance[:, 10:, :3, :3])
    assert np.einsum("wni,wnij,wnj->wn", error, inverse, error).mean() == pytest.approx(3.0, rel=0.1)


def test_the_deviation_is_read_off_the_fixes_of_a_user_who_turns() -> None:
    draw = np.random.default_rng(3)
    time = np.arange(200)[:, None]
    line = np.where(time < 100, time, 200 - time) * np.array([1.0, 2.0, 0.0])
    fix = line + draw.normal(0, 0.8, (5, 200, 3))
    fix[:, ::17] += draw.normal(0, 100, (5, 12, 3))
    fix[0, 50] = np.nan
    assert deviation_of(fix) == pytest.approx(0.8, rel=0.25)
    assert np.isnan(deviation_of(fix[:, :2]))
