from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator
from scipy.special import logsumexp

from cloud.fusion.scores.answers import FloatArray
from cloud.fusion.scores.mixture import MOST_COMPONENTS, Mixture, product


def any_mixture(random: Generator, components: int, size: int, spread: float = 1.0, width: float = 0.5) -> Mixture:
    root = width * random.standard_normal((components, size, size))
    covariance = root @ np.swapaxes(root, 1, 2) + 0.3 * width**2 * np.eye(size)
    return Mixture(
        random.uniform(0.2, 1.0, components), spread * random.standard_normal((components, size)), covariance
    )


def log_density(mixture: Mixture, x: FloatArray) -> FloatArray:
    """The logarithm (N,) of a mixture's density at points x (N, D)."""
    apart = x[:, None, :] - mixture.mean
    square = np.einsum("nci,cij,ncj->nc", apart, np.linalg.inv(mixture.covariance), apart, optimize=True)
    norm = np.linalg.slogdet(mixture.covariance)[1] + x.shape[-1] * np.log(2 * np.pi)
    weight = mixture.weight / mixture.weight.sum()
    with np.errstate(over="ignore"):  # SciPy divides by the least weight, which may be tiny
        return np.asarray(logsumexp(-(square + norm) / 2, axis=1, b=weight), np.float64)


def grid(size: int, count: int, reach: float = 5.0) -> tuple[FloatArray, float]:
    axis = np.linspace(-reach, reach, count)
    points = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1).reshape(-1, size)
    return points, float((axis[1] - axis[0]) ** size)


@pytest.mark.parametrize(("size", "count"), [(1, 2001), (2, 251), (3, 71)])
@pytest.mark.parametrize("with_prior", [False, True])
def test_product_is_that_of_the_densities_on_a_grid(size: int, count: int, with_prior: bool) -> None:
    random = np.random.default_rng(size)
    factors = [any_mixture(random, c, size) for c in (3, 2, 3, 1)]
    points, cell = grid(size, count)
    log = np.sum([log_density(factor, points) for factor in factors], axis=0)
    over = None
    if with_prior:  # wider than any component, as a prior is
        over = Mixture(np.ones(1), np.full((1, size), 0.3), 9.0 * np.eye(size)[None])
        log -= 3 * log_density(over, points)
    density = np.exp(log - log.max())
    density /= density.sum() * cell
    made = product(factors, over)
    assert len(made.weight) == 3 * 2 * 3
    np.testing.assert_allclose(np.exp(log_density(made, points)), density, rtol=1e-6, atol=1e-6 * density.max())
    mean, covariance = made.moments()
    wanted = cell * density @ points
    np.testing.assert_allclose(mean, wanted, atol=1e-6)
    apart = points - wanted
    np.testing.assert_allclose(covariance, cell * (density[:, None] * apart).T @ apart, atol=1e-6)


def test_log_density_integrates_to_one() -> None:
    points, cell = grid(2, 401, 8.0)
    total = np.exp(log_density(any_mixture(np.random.default_rng(4), 3, 2), points)).sum() * cell
    assert total == pytest.approx(1, abs=1e-6)


def test_pruned_product_keeps_the_moments() -> None:
    random = np.random.default_rng(0)
    factors = [any_mixture(random, 3, 2) for _ in range(11)]  # 3¹¹ = 177 147
    made = product(factors)
    assert len(made.weight) == MOST_COMPONENTS
    points, _ = grid(2, 401, 3.0)
    log = np.sum([log_density(factor, points) for factor in factors], axis=0)
    density = np.exp(log - log.max())
    density /= density.sum()
    mean, covariance = made.moments()
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(np.abs(mean - density @ points), 0.02 * deviation)
    apart = points - density @ points
    np.testing.assert_allclose(np.diag(covariance), density @ apart**2, rtol=0.05)


def test_nine_base_stations_of_three_components_are_not_pruned() -> None:
    random = np.random.default_rng(0)
    assert len(product([any_mixture(random, 3, 2) for _ in range(9)]).weight) == 3**9


def test_factors_that_hardly_overlap_do_not_vanish() -> None:
    narrow = 1e-8 * np.eye(2)[None]
    made = product([Mixture(np.ones(1), np.full((1, 2), at), narrow) for at in (-50.0, 50.0, 0.0)])
    mean, covariance = made.moments()
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(covariance, narrow[0] / 3)
    np.testing.assert_array_equal(made.weight, 1)


def test_one_factor_comes_back_and_weights_are_proportions() -> None:
    mixture = any_mixture(np.random.default_rng(1), 3, 3)
    same = product([mixture])
    points = np.random.default_rng(2).standard_normal((50, 3))
    np.testing.assert_allclose(log_density(same, points), log_density(mixture, points))
    np.testing.assert_allclose(
        log_density(Mixture(7 * mixture.weight, mixture.mean, mixture.covariance), points), log_density(mixture, points)
    )


def test_components_of_no_weight_count_for_nothing() -> None:
    mixture = Mixture(np.array([1.0, 0.0]), np.array([[0.0, 0.0], [9.0, 9.0]]), np.stack([np.eye(2)] * 2))
    assert np.isfinite(log_density(mixture, np.zeros((1, 2)))).all()
    np.testing.assert_allclose(product([mixture, mixture]).moments()[1], np.eye(2) / 2)


def test_a_component_wider_than_the_prior_is_taken_for_no_wider() -> None:
    prior = Mixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    wide = Mixture(np.ones(1), np.zeros((1, 2)), 50 * np.eye(2)[None])
    np.testing.assert_allclose(product([wide] * 5, prior).moments()[1], np.eye(2), atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([2, 3]), count=st.integers(1, 4))
def test_the_order_of_factors_is_of_no_matter(seed: int, size: int, count: int) -> None:
    random = np.random.default_rng(seed)
    factors = [any_mixture(random, int(random.integers(1, 4)), size, spread=3.0, width=0.1) for _ in range(count)]
    points = random.standard_normal((5, size))
    one, other = product(factors), product(factors[::-1])
    np.testing.assert_allclose(log_density(one, points), log_density(other, points), rtol=1e-6, atol=1e-6)


def test_what_is_no_mixture() -> None:
    eye = np.eye(2)[None]
    for weight, mean, covariance, sentence in (
        (np.ones(2), np.zeros((1, 2)), eye, "needs weights"),
        (np.ones(0), np.zeros((0, 2)), np.zeros((0, 2, 2)), "needs weights"),
        (np.zeros(1), np.zeros((1, 2)), eye, "must not be negative"),
        (-np.ones(1), np.zeros((1, 2)), eye, "must not be negative"),
        (np.ones(1), np.full((1, 2), np.nan), eye, "finite"),
        (np.ones(1), np.zeros((1, 2)), 0 * eye, "positive definite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Mixture(weight, mean, covariance)


def test_what_has_no_product() -> None:
    two, three = (any_mixture(np.random.default_rng(0), 2, size) for size in (2, 3))
    for factors, over, sentence in (
        ([], None, "at least one"),
        ([two, three], None, "dimensions"),
        ([two], two, "one"),
    ):
        with pytest.raises(ValueError, match=sentence):
            product(factors, over)
