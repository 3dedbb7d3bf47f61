from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_ndtr

from cloud.fusion.scores.answers import FloatArray
from cloud.fusion.scores.prior import BoxPrior, truncated_normal_mean
from fronthaul.payload.noise_levels import Level, consistency_schedule, diffusion_schedule

LEVELS = [*diffusion_schedule(5), *consistency_schedule(4, 0.002, 80.0)]


def log_density(box: BoxPrior, x: FloatArray, level: Level) -> FloatArray:
    """log p_t (N,) up to a constant: log Π_i (Φ(u_i) − Φ(v_i)), on the side where both are small."""
    u, v = ((x - level.signal * corner) / level.noise for corner in (box.low, box.high))
    u, v = np.where(v > 0, -v, u), np.where(v > 0, -u, v)
    return np.asarray((log_ndtr(u) + np.log1p(-np.exp(log_ndtr(v) - log_ndtr(u)))).sum(axis=1))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("level", LEVELS)
def test_eps_is_the_slope_of_the_noised_density(size: int, level: Level) -> None:
    box = BoxPrior(np.array([-1.0, -0.5, 0.1])[:size], np.array([0.7, 1.5, 0.3])[:size])
    random = np.random.default_rng(size)
    # Where noise is wide against the box, log p_t is a difference of near equals, so it is differentiated over more.
    width = min(1.0, float(level.signal * (box.high - box.low).min() / level.noise))
    x = level.signal * random.uniform(-1.2, 1.7, (200, size)) + level.noise * random.standard_normal((200, size))
    step = 1e-4 * level.noise
    slope = np.empty_like(x)
    for axis in range(size):
        shift = step * np.eye(size)[axis]
        slope[:, axis] = (log_density(box, x + shift, level) - log_density(box, x - shift, level)) / (2 * step)
    found = box.eps(x, level)
    far = np.abs(found) > 1e3  # outside at next to no noise, where numbers to differentiate have 1e6 before the point
    near = np.broadcast_to(~far.any(axis=1)[:, None], found.shape)
    assert near.mean() > 0.2
    np.testing.assert_allclose(found[near], -level.noise * slope[near], rtol=1e-4, atol=1e-9 / width / 1e-4)


@pytest.mark.parametrize("width", [1e-9, 1e-4, 1e-2, 0.5, 3.0, 50.0, 1e5])
@pytest.mark.parametrize("middle", [0.0, 1e-6, 0.3, 2.0, 7.0, 24.9, 25.1, 60.0, 4e4, 1e7])
def test_truncated_mean_against_many_digits(middle: float, width: float) -> None:
    with mpmath.workdps(60 + int(3 * np.log10(1 + middle))):
        m, w = mpmath.mpf(middle), mpmath.mpf(width)
        low, high = m - w / 2, m + w / 2
        falls = 1 - mpmath.exp(-m * w)  # scaled by φ(low), which may be below any float
        scaled = [mpmath.sqrt(mpmath.pi / 2) * _erfcx(z) for z in (low, high)] if low > 5 else None
        if scaled:
            exact = falls / (scaled[0] - (1 - falls) * scaled[1])
        else:
            mass = (mpmath.erf(high / mpmath.sqrt(2)) - mpmath.erf(low / mpmath.sqrt(2))) / 2
            exact = (mpmath.npdf(low) - mpmath.npdf(high)) / mass
        wanted = float(exact)
    found = truncated_normal_mean(np.array([middle, -middle]), np.full(2, width))
    np.testing.assert_allclose(found, [wanted, -wanted], rtol=2e-12, atol=1e-15)


def _erfcx(z: mpmath.mpf) -> mpmath.mpf:
    """exp(z²/2) erfc(z/√2), by its continued fraction far out."""
    if z < 100:
        return mpmath.exp(z * z / 2) * mpmath.erfc(z / mpmath.sqrt(2))
    total = z
    for n in range(200, 0, -1):
        total = z + n / total
    return mpmath.sqrt(2 / mpmath.pi) / total


wide = st.floats(-1e150, 1e150)


@given(middle=wide, width=st.floats(1e-12, 1e12))
def test_truncated_mean_lies_in_its_interval_and_is_odd(middle: float, width: float) -> None:
    found, mirrored = truncated_normal_mean(np.array([middle, -middle]), np.full(2, width))
    assert np.isfinite(found) and found == -mirrored
    low, high = np.nextafter([middle - width / 2, middle + width / 2], [-np.inf, np.inf])
    assert low <= found <= high
    assert abs(found) <= np.nextafter(abs(middle), np.inf)  # truncation pulls towards 0


@given(
    x=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30),
    noise=st.floats(1e-6, 1e6),
    signal=st.floats(1e-3, 1.0),
)
def test_eps_never_falls_along_an_axis(x: list[float], noise: float, signal: float) -> None:
    box = BoxPrior(np.array([-1.0]), np.array([0.5]))
    found = box.eps(np.sort(np.array(x))[:, None], Level(signal, noise, 0.5))[:, 0]
    assert np.isfinite(found).all()
    assert (np.diff(found) >= -1e-9 * (1 + np.abs(found[1:]))).all()


def test_inside_at_little_noise_there_is_no_pull_and_outside_it_leads_to_the_face() -> None:
    box, level = BoxPrior(np.array([-1.0, -1.0]), np.array([1.0, 1.0])), Level(1.0, 1e-8, 0.0)
    x = np.array([[0.0, 0.9], [3.0, -5.0]])
    eps = box.eps(x, level)
    np.testing.assert_array_equal(eps[0], 0)
    np.testing.assert_allclose(x[1] - level.noise * eps[1], [1.0, -1.0])
    np.testing.assert_array_equal(box.score(x), 0)


def test_moments_of_the_box() -> None:
    box = BoxPrior(np.array([-1.0, 0.0, 2.0]), np.array([1.0, 3.0, 2.5]))
    draws = np.random.default_rng(0).uniform(box.low, box.high, (200_000, 3))
    np.testing.assert_allclose(box.mean, draws.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(box.covariance, np.cov(draws.T), atol=0.01)


@pytest.mark.parametrize(
    ("low", "high"), [([0.0, 0.0], [1.0, 0.0]), ([0.0], [1.0, 2.0]), ([0.0, np.nan], [1.0, 1.0]), (0.0, 1.0)]
)
def test_what_is_no_box(low: object, high: object) -> None:
    with pytest.raises(ValueError, match="a box"):
        BoxPrior(np.array(low), np.array(high))
