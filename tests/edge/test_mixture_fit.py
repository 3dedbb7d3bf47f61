"""Mixtures fitted to samples: the truth of separated clusters, the floor of samples that coincide, no randomness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.mixture_fit import fit_mixture


def test_separated_clusters_are_found() -> None:
    draw = np.random.default_rng(1)
    centres = np.array([[0.8, 0.0], [-0.6, 0.5], [0.0, -0.7]])
    share = np.array([300, 200, 100])
    samples = np.concatenate([c + 0.05 * draw.standard_normal((n, 2)) for c, n in zip(centres, share, strict=True)])
    found = fit_mixture(samples, 3)
    order = np.argsort(-found.weight)
    np.testing.assert_allclose(found.weight[order], share / 600, atol=0.01)
    np.testing.assert_allclose(found.mean[order], centres, atol=0.02)
    for covariance in found.covariance:
        np.testing.assert_allclose(covariance, 0.0025 * np.eye(2), atol=6e-4)


def test_one_cluster_keeps_its_moments() -> None:
    samples = np.random.default_rng(2).multivariate_normal([0.1, 0.2], [[0.04, 0.01], [0.01, 0.02]], 64)
    found = fit_mixture(samples, 3)
    mean = found.weight @ found.mean
    apart = found.mean - mean
    covariance = np.einsum("c,cij->ij", found.weight, found.covariance) + (found.weight[:, None] * apart).T @ apart
    np.testing.assert_allclose(mean, samples.mean(0), atol=0.02)
    np.testing.assert_allclose(covariance, np.cov(samples.T), atol=0.01)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_samples_that_coincide_get_the_floor(dimensions: int) -> None:
    found = fit_mixture(np.full((64, dimensions), 0.3), 3, floor=0.01)
    np.testing.assert_allclose(found.mean, 0.3)
    for covariance in found.covariance:
        np.testing.assert_allclose(covariance, 1e-4 * np.eye(dimensions), rtol=1e-6, atol=1e-12)
    assert found.weight.sum() == pytest.approx(1)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 64), st.integers(2, 3), st.floats(1e-6, 10))
def test_whatever_the_samples_a_mixture_comes_out(seed: int, count: int, size: int, scale: float) -> None:
    samples = scale * np.random.default_rng(seed).standard_cauchy((count, size)).clip(-100, 100)
    found, again = fit_mixture(samples, 3), fit_mixture(samples.copy(), 3)
    assert found.weight.sum() == pytest.approx(1) and (found.weight >= 0).all()
    assert np.isfinite(found.mean).all() and np.linalg.eigvalsh(found.covariance).min() > 0
    np.testing.assert_array_equal(found.mean, again.mean)
